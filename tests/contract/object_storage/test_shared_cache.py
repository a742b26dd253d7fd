"""The shared cache's manifest from a bucket that checks every signature, filled by the worker's command."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from aiohttp import web

from moorage.adapters.object_storage import Bucket, BucketKeys, BucketUnreadable, SharedCache
from moorage.adapters.system import SystemClock
from moorage.ports.outside import CachedFile, SharedModelCache
from moorage.testing.hub import HubStandIn

if TYPE_CHECKING:
    from worker_harness.s3 import Keys, S3Server

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
COMMIT = "c" * 40
FOLDER = f"models/moorage--digits/{COMMIT}"
FILES = {"config.json": b"{}", "onnx/odd [name] +.onnx": b"graph" * 100}


class FixedClock:
    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


Open = Callable[..., SharedCache]


@pytest.fixture
async def open_cache(s3: S3Server) -> AsyncIterator[Open]:
    opened: list[SharedCache] = []

    def open_cache(bucket: str, keys: Keys, **options: Any) -> SharedCache:  # Any: those of SharedCache
        place = Bucket.parse(f"s3://{bucket}/models", options.pop("endpoint_url", s3.url))
        ours = BucketKeys(keys.access_key_id, keys.secret_access_key)
        opened.append(SharedCache(place, ours, options.pop("clock", SystemClock()), **options))
        return opened[-1]

    yield open_cache
    for cache in opened:
        await cache.aclose()


def filled(s3: S3Server, **change: object) -> str:
    """The bucket of a copy written by hand."""
    bucket = s3.add_bucket()
    files = [{"path": path, "size": len(data)} for path, data in FILES.items()]
    for path, data in FILES.items():
        s3.put(bucket, f"{FOLDER}/{path}", data)
    marker = {"repo_id": "moorage/digits", "revision": COMMIT, "files": files, **change}
    s3.put(bucket, f"{FOLDER}/.moorage-complete.json", json.dumps(marker).encode())
    return bucket


async def content(file: CachedFile) -> bytes:
    async with httpx.AsyncClient() as client:
        answer = await client.get(file.url)
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_every_file_has_a_url_that_opens_it_and_nothing_else(s3: S3Server, open_cache: Open) -> None:
    cache: SharedModelCache = open_cache(filled(s3), s3.add_user(["s3:GetObject"]))
    files = await cache.manifest("moorage/digits", COMMIT)
    assert files is not None
    assert {file.path: file.size for file in files} == {path: len(data) for path, data in FILES.items()}
    assert {file.path: await content(file) for file in files} == FILES
    async with httpx.AsyncClient() as client:
        other = files[0].url.replace("config.json", ".moorage-complete.json")
        assert (await client.get(other)).status_code == 403
        assert (await client.delete(files[0].url)).status_code == 403


async def test_urls_run_out(s3: S3Server, open_cache: Open) -> None:
    long_ago = FixedClock(datetime.now(UTC) - timedelta(seconds=50))
    bucket, keys = filled(s3), s3.add_user()
    short = await open_cache(bucket, keys, clock=long_ago, valid=timedelta(seconds=40)).manifest(
        "moorage/digits", COMMIT
    )
    longer = await open_cache(bucket, keys, clock=long_ago, valid=timedelta(minutes=9)).manifest(
        "moorage/digits", COMMIT
    )
    assert short is not None
    assert longer is not None
    async with httpx.AsyncClient() as client:
        assert (await client.get(short[0].url)).status_code == 403
        assert (await client.get(longer[0].url)).status_code == 200


async def test_what_has_no_marker_is_not_there(s3: S3Server, open_cache: Open) -> None:
    bucket, keys = filled(s3), s3.add_user()
    cache = open_cache(bucket, keys)
    assert await cache.manifest("moorage/digits", "d" * 40) is None
    assert await cache.manifest("moorage/other", COMMIT) is None
    s3.delete(bucket, f"{FOLDER}/.moorage-complete.json")
    assert await cache.manifest("moorage/digits", COMMIT) is None


async def test_what_keeps_it_from_reading_is_told_apart_and_without_keys(
    s3: S3Server, open_cache: Open, caplog: pytest.LogCaptureFixture
) -> None:
    from worker_harness.s3 import Keys

    caplog.set_level(logging.DEBUG)
    bucket, keys = filled(s3), s3.add_user()
    cases = {
        "check AWS_SECRET_ACCESS_KEY": open_cache(bucket, Keys(keys.access_key_id, "not-the-secret")),
        "access key id is refused": open_cache(bucket, Keys("AKIANOBODY", "x" * 40)),
        "allow them s3:GetObject": open_cache(bucket, s3.add_user(["s3:ListAllMyBuckets"])),
        "there is no such bucket": open_cache("not-there", keys),
        "cannot be reached": open_cache(bucket, keys, endpoint_url="http://127.0.0.1:9"),
    }
    for said, cache in cases.items():
        with pytest.raises(BucketUnreadable, match=said) as caught:
            await cache.manifest("moorage/digits", COMMIT)
        told = str(caught.value) + repr(cache) + repr(vars(cache))
        assert "not-the-secret" not in told
        assert keys.secret_access_key not in told
        assert "X-Amz-Signature" not in told
    assert keys.secret_access_key not in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"files": []},
        {"files": "all"},
        {"files": [{"path": "../../secret", "size": 1}]},
        {"files": [{"path": "/etc/x", "size": 1}]},
        {"files": [{"path": "a", "size": "1"}]},
        {"files": [1]},
        {"revision": "e" * 40},
        {"repo_id": "moorage/other"},
    ],
)
async def test_a_marker_that_is_not_ours_is_not_believed(
    s3: S3Server, open_cache: Open, change: dict[str, object]
) -> None:
    cache = open_cache(filled(s3, **change), s3.add_user())
    with pytest.raises(BucketUnreadable, match=r"moorage/digits|marker"):
        await cache.manifest("moorage/digits", COMMIT)


async def test_the_region_that_the_bucket_asks_for_is_taken(open_cache: Open) -> None:
    """AWS answers 400 with the right region; no S3 server here does, so that this one answer is made."""
    from worker_harness.s3 import Keys

    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        region = request.query["X-Amz-Credential"].split("/")[2]
        asked.append(region)
        if region != "eu-west-1":
            code = "AuthorizationQueryParametersError"
            return web.Response(
                status=400, text=f"<Error><Code>{code}</Code><Region>eu-west-1</Region></Error>"
            )
        files = [{"path": "config.json", "size": 2}]
        return web.json_response({"repo_id": "moorage/digits", "revision": COMMIT, "files": files})

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        cache = open_cache("weights", Keys("AKIA", "secret"), endpoint_url=f"http://{host}:{port}")
        for _ in range(2):
            files = await cache.manifest("moorage/digits", COMMIT)
            assert files is not None
            assert "%2Feu-west-1%2Fs3%2F" in files[0].url
        assert asked == ["us-east-1", "eu-west-1", "eu-west-1"]
    finally:
        await runner.cleanup()


async def test_what_the_operator_s_command_fills_is_what_workers_are_told(
    s3: S3Server, open_cache: Open, tmp_path: Path
) -> None:
    bucket, keys = s3.add_bucket(), s3.add_user()
    async with HubStandIn() as hub:
        commit = await hub.add_repo("moorage/digits", DIGITS)
        command = [sys.executable, "-m", "moorage_worker.cache", "fill", "--model", "moorage/digits"]
        command += ["--url", f"s3://{bucket}/models", "--endpoint-url", s3.url, "--cache-dir", str(tmp_path)]
        ended = await _run(command, {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), **_aws(keys)})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    files = await open_cache(bucket, keys).manifest("moorage/digits", commit)
    assert files is not None
    assert {file.path: await content(file) for file in files} == {
        name: (DIGITS / name).read_bytes()
        for name in ("config.json", "onnx/model.onnx", "preprocessor_config.json")
    }


def _aws(keys: Keys) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": keys.access_key_id, "AWS_SECRET_ACCESS_KEY": keys.secret_access_key}


async def _run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    import asyncio

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, env={**environ, **env}, timeout=60)

    return await asyncio.to_thread(run)
