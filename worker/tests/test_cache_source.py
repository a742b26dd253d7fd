"""What a load says of where its files came from, and what it leaves to do; without a bucket's help too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from worker_harness.hub import COMMIT, Hub
from worker_harness.models import digits_copy
from worker_harness.running import DIGITS
from worker_harness.s3 import S3Server

from moorage_worker.cache import s5cmd
from moorage_worker.cache.errors import ToolMissing
from moorage_worker.cache.layout import ModelKey
from moorage_worker.cache.model_cache import ModelCache
from moorage_worker.cache.settings import BucketKeys, BucketPlace, CacheScope, CacheSettings

# The Hub's client reads its environment when it is imported, hence a process.
FETCH = """
import os, sys
from moorage_worker.settings import parse_settings
from moorage_worker.source import fetch
told = []
model = fetch(parse_settings(sys.argv[1:], os.environ), lambda done, total: told.append((done, total)))
if model.after_ready is not None:
    model.after_ready()
sizes = sum(p.stat().st_size for p in model.folder.root.rglob("*") if p.is_file() and p.name[0] != ".")
whole = not told or told[-1] == (sizes, sizes)
print(model.engine, model.version, model.from_cache, model.after_ready is not None, whole)
"""

Fetch = Callable[..., list[str]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub({"team/digits": digits_copy(tmp_path / "repository")}).serving() as serving:
        yield serving


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path) -> Fetch:
    def fetch(model: str, *options: str, env: dict[str, str] | None = None) -> list[str]:
        line = [
            sys.executable,
            "-c",
            FETCH,
            "--model",
            model,
            "--cache-dir",
            str(tmp_path / "disk"),
            *options,
        ]
        surroundings = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), **(env or {})}
        ended = subprocess.run(line, capture_output=True, text=True, env=surroundings, timeout=60)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.split()

    return fetch


def test_without_a_cache_the_disk_is_one(fetch: Fetch) -> None:
    assert fetch("team/digits") == ["onnx", COMMIT, "False", "False", "True"]
    assert fetch("team/digits") == ["onnx", COMMIT, "True", "False", "True"]
    assert fetch(str(DIGITS)) == ["onnx", "local", "False", "False", "True"]


def test_with_a_bucket(s3: S3Server, fetch: Fetch, tmp_path: Path) -> None:
    keys = s3.add_user()
    env = {
        "MOORAGE_CACHE_SCOPE": "private",
        "MOORAGE_CACHE_URL": f"s3://{s3.add_bucket()}",
        "MOORAGE_CACHE_ACCESS_KEY_ID": keys.access_key_id,
        "MOORAGE_CACHE_SECRET_ACCESS_KEY": keys.secret_access_key,
        "MOORAGE_CACHE_ENDPOINT_URL": s3.url,
    }
    assert fetch("team/digits", env=env) == ["onnx", COMMIT, "False", "True", "True"]
    assert fetch("team/digits", env=env) == ["onnx", COMMIT, "True", "True", "True"], (
        "from the Hub client's disk"
    )
    shutil.rmtree(tmp_path / "disk")
    assert fetch("team/digits", env=env) == ["onnx", COMMIT, "True", "False", "True"], "from the bucket"
    assert fetch("team/digits", env=env) == ["onnx", COMMIT, "True", "True", "True"], "from our own disk"


def test_a_machine_without_s5cmd_goes_to_the_hub_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(s5cmd, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match=r"moorage-worker\[s3\]"):
        s5cmd.program()
    place = BucketPlace("s3://bucket/models", BucketKeys("id", "very-secret"))
    cache = ModelCache(CacheSettings(CacheScope.PRIVATE, bucket=place), tmp_path)
    assert cache.find(ModelKey("team/digits", COMMIT), lambda _: None) is None
    assert "pip install 'moorage-worker[s3]'" in caplog.text
    assert "very-secret" not in caplog.text
