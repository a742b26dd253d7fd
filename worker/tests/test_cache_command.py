"""The operator's command, as a process: fill and check, its lines and its exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from worker_harness.hub import COMMIT, Hub
from worker_harness.models import digits_copy
from worker_harness.s3 import READ_ONLY, Keys, S3Server

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub({"team/digits": digits_copy(tmp_path / "repository")}).serving() as serving:
        yield serving


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.add_bucket()


@pytest.fixture
def command(s3: S3Server, hub: Hub, bucket: str, tmp_path: Path) -> Command:
    owner = s3.add_user()

    def run(
        what: str,
        *options: str,
        model: str = "team/digits",
        url: str | None = None,
        keys: Keys | None = owner,
    ) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "moorage_worker.cache", what, "--model", model]
        line += ["--url", url or f"s3://{bucket}/models", "--endpoint-url", s3.url, "--hub-patience", "0"]
        line += ["--cache-dir", str(tmp_path / "disk"), *options]
        opened = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        if keys is not None:
            opened = {
                "AWS_ACCESS_KEY_ID": keys.access_key_id,
                "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
            }
        hub_env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": ""}
        env = {**os.environ, **hub_env, **opened}
        return subprocess.run(line, capture_output=True, text=True, env=env, timeout=60)

    return run


def test_fill_then_check(s3: S3Server, hub: Hub, bucket: str, command: Command) -> None:
    empty = command("check")
    assert (empty.returncode, empty.stdout.splitlines()[0]) == (3, "it has no marker")
    filled = command("fill")
    assert filled.returncode == 0, filled.stderr
    copy = f"s3://{bucket}/models/team--digits/{COMMIT}"
    assert filled.stdout.splitlines()[0].startswith(f"team/digits at {COMMIT}: 3 files, ")
    assert filled.stdout.splitlines()[-1] == f"{copy} is complete"
    assert "stored: 100 % of" in filled.stdout
    assert len(s3.objects(bucket)) == 4
    whole = command("check")
    assert (whole.returncode, whole.stdout.strip()[: len(copy)]) == (0, copy)
    assert "is whole: 3 files" in whole.stdout
    hub.sent.clear()
    again = command("fill")
    assert (again.returncode, hub.sent) == (0, [])
    assert "is complete already" in again.stdout
    s3.put(bucket, f"models/team--digits/{COMMIT}/config.json", b"{}")
    broken = command("check")
    assert broken.returncode == 3
    assert "config.json has 2 bytes, not" in broken.stdout


def test_another_engine_than_this_machine_has_can_be_filled_for(
    s3: S3Server, bucket: str, command: Command
) -> None:
    filled = command("fill", "--engine", "sentence-transformers")
    assert filled.returncode == 0, filled.stdout
    names = {key.rpartition("/")[2] for key in s3.objects(bucket)}
    assert "model.safetensors" in names
    assert "model.onnx" not in names


@pytest.mark.parametrize("what", ["fill", "check"])
def test_what_cannot_be_done_is_the_last_line(s3: S3Server, command: Command, what: str) -> None:
    known = s3.add_user()
    cases = {
        "keys are refused": command(what, keys=Keys(known.access_key_id, "not-the-secret")),
        "there is no such bucket": command(what, url="s3://not-there/models"),
        "team/none is not on the Hub": command(what, model="team/none"),
        "team/digits has no revision v9": command(what, "--revision", "v9"),
    }
    for said, ended in cases.items():
        assert ended.returncode == 1, ended
        assert said in ended.stdout.splitlines()[-1]
        assert "not-the-secret" not in ended.stdout + ended.stderr


def test_keys_that_may_not_write_cannot_fill(s3: S3Server, command: Command) -> None:
    ended = command("fill", keys=s3.add_user(READ_ONLY))
    assert ended.returncode == 1
    assert "s3:PutObject" in ended.stdout.splitlines()[-1]


def test_wrong_usage(command: Command) -> None:
    assert command("empty").returncode == 2
    no_keys = command("fill", keys=None)
    assert no_keys.returncode == 2
    assert "MOORAGE_CACHE_ACCESS_KEY_ID or AWS_ACCESS_KEY_ID must be set" in no_keys.stderr
    not_s3 = command("fill", url="https://bucket/models")
    assert not_s3.returncode == 2
    assert "--url must begin with s3://" in not_s3.stderr
