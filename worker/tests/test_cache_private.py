"""The private scope as a user has it: worker processes, a bucket with checked signatures, the real s5cmd."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from worker_harness.hub import COMMIT, Hub
from worker_harness.models import digits_copy
from worker_harness.running import StartWorker, WorkerProcess
from worker_harness.s3 import READ_ONLY, Keys, S3Server, SeenRequest

MODEL = "team/digits"
FILES = ["config.json", "onnx/model.onnx", "preprocessor_config.json"]
COPY = f"models/team--digits/{COMMIT}"
MARKER = f"{COPY}/.moorage-complete.json"

Start = Callable[..., WorkerProcess]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub({MODEL: digits_copy(tmp_path / "repository")}).serving() as serving:
        yield serving


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.add_bucket()


@pytest.fixture
def start(s3: S3Server, hub: Hub, bucket: str, start_worker: StartWorker, tmp_path: Path) -> Start:
    """`start(machine, keys=…, env=…)`: a worker on a disk of its own for each name of a machine."""
    owner = s3.add_user()

    def start(
        machine: str, *options: str, keys: Keys = owner, env: dict[str, str] | None = None
    ) -> WorkerProcess:
        private = {
            "HF_ENDPOINT": hub.url,
            "MOORAGE_CACHE_SCOPE": "private",
            "MOORAGE_CACHE_URL": f"s3://{bucket}/models/",
            "MOORAGE_CACHE_ACCESS_KEY_ID": keys.access_key_id,
            "MOORAGE_CACHE_SECRET_ACCESS_KEY": keys.secret_access_key,
            "MOORAGE_CACHE_ENDPOINT_URL": s3.url,
        }
        disk = ("--cache-dir", str(tmp_path / machine))
        return start_worker(MODEL, *disk, *options, env={**private, **(env or {})})

    return start


def answers(worker: WorkerProcess) -> bool:
    pixels = [[0] * 8] * 8
    return len(worker.infer(pixels)) > 0


def test_cold_fills_the_bucket_after_ready_and_warm_needs_no_hub(
    s3: S3Server, hub: Hub, bucket: str, start: Start
) -> None:
    cold = start("a").ready()
    cold.wait_for_line("model cache filled")
    ready, filled = (
        next(i for i, line in enumerate(cold.lines) if t in line) for t in ("ready in", "filled")
    )
    assert ready < filled
    assert list(s3.objects(bucket)) == sorted([MARKER, *(f"{COPY}/{name}" for name in FILES)])
    marker = json.loads(s3.read(bucket, MARKER))
    assert (marker["repo_id"], marker["revision"]) == (MODEL, COMMIT)
    assert {f"{COPY}/{f['path']}": f["size"] for f in marker["files"]} == {
        key: size for key, size in s3.objects(bucket).items() if key != MARKER
    }
    writes = [seen.path for seen in s3.requests if seen.method == "PUT" and bucket in seen.path]
    assert writes[-1].endswith(MARKER), "the marker is written last"

    hub.sent.clear()
    writes_before = s3.count("PUT")
    warm = start("b", "--revision", COMMIT, env={"HF_ENDPOINT": "http://127.0.0.1:9"}).ready()
    assert hub.sent == []
    assert s3.count("PUT") == writes_before
    assert warm.get("/metadata").json()["revision"] == COMMIT
    assert answers(warm)
    warm.wait_for_line("fetched 3 files")


def test_the_same_machine_starts_again_from_its_disk(
    s3: S3Server, hub: Hub, bucket: str, start: Start
) -> None:
    start("a").ready().wait_for_line("model cache filled")
    start("b").ready().stop()
    hub.sent.clear()
    reads_before = s3.count("GET", ".onnx")
    again = start("b").ready()
    again.wait_for_line("model cache is complete already")
    assert (hub.sent, s3.count("GET", ".onnx")) == ([], reads_before)
    assert answers(again)


@pytest.mark.parametrize("damage", ["marker missing", "marker garbage", "file missing", "file cut"])
def test_a_copy_that_is_not_whole_is_never_used_and_is_mended(
    damage: str, s3: S3Server, hub: Hub, bucket: str, start: Start
) -> None:
    start("a").ready().wait_for_line("model cache filled")
    whole = s3.objects(bucket)
    match damage:
        case "marker missing":
            s3.delete(bucket, MARKER)
        case "marker garbage":
            s3.put(bucket, MARKER, b"<html>")
        case "file missing":
            s3.delete(bucket, f"{COPY}/onnx/model.onnx")
        case "file cut":
            s3.put(bucket, f"{COPY}/onnx/model.onnx", b"half")
    hub.sent.clear()
    second = start("b").ready()
    assert sorted(hub.sent) == FILES
    assert answers(second)
    second.wait_for_line("model cache filled")
    assert s3.objects(bucket) == whole
    hub.sent.clear()
    start("c").ready()
    assert hub.sent == []


def test_trouble_with_the_bucket_is_told_apart_and_does_not_stop_the_model(
    s3: S3Server, start: Start
) -> None:
    known = s3.add_user()
    cases = {
        "the bucket's keys are refused": start("a", keys=Keys(known.access_key_id, "not-the-secret")),
        "InvalidAccessKeyId": start("b", keys=Keys("AKIAUNKNOWN", "x" * 40)),
        "the bucket's keys may not do this": start("c", keys=s3.add_user(["s3:ListAllMyBuckets"])),
        "there is no such bucket": start("d", env={"MOORAGE_CACHE_URL": "s3://not-there/models"}),
        "the storage endpoint cannot be reached": start(
            "e", env={"MOORAGE_CACHE_ENDPOINT_URL": "http://127.0.0.1:9"}
        ),
    }
    for said, worker in cases.items():
        warning = worker.ready().wait_for_line(said)
        assert "WARNING" in warning
        assert "the Hub is asked instead" in warning
        assert "Check" in warning or "Allow" in warning or "Create" in warning
        worker.wait_for_line("model cache not filled")
        assert answers(worker)
        assert "not-the-secret" not in "\n".join(worker.lines)


def test_keys_that_may_only_read_serve_and_say_what_they_may_not(s3: S3Server, start: Start) -> None:
    worker = start("a", keys=s3.add_user(READ_ONLY)).ready()
    warning = worker.wait_for_line("model cache not filled")
    assert "s3:PutObject" in warning
    assert answers(worker)


def test_readiness_does_not_wait_for_the_upload(s3: S3Server, bucket: str, start: Start) -> None:
    hold = s3.hold(lambda seen: _writes(seen, bucket))
    worker = start("a").ready()
    assert hold.caught()
    assert answers(worker)
    assert MARKER not in s3.objects(bucket)
    hold.release()
    worker.wait_for_line("model cache filled")


def test_a_worker_killed_while_it_uploads_leaves_no_marker_and_the_next_one_fills(
    s3: S3Server, hub: Hub, bucket: str, start: Start
) -> None:
    hold = s3.hold(lambda seen: _writes(seen, bucket) and seen.path.endswith("model.onnx"))
    worker = start("a").ready()
    assert hold.caught()
    child = _child_of(worker)
    worker.stop()
    _wait_until_gone(child)
    hold.release()
    assert MARKER not in s3.objects(bucket)
    hub.sent.clear()
    again = start("a").ready()
    again.wait_for_line("model cache filled")
    assert hub.sent == [], "the disk still had it; only the upload was taken up"
    assert MARKER in s3.objects(bucket)


def test_a_worker_killed_while_it_downloads_starts_again_with_the_rest(
    s3: S3Server, hub: Hub, bucket: str, start: Start
) -> None:
    start("a").ready().wait_for_line("model cache filled")
    hold = s3.hold(
        lambda seen: seen.method == "GET" and seen.path.endswith("model.onnx") and bucket in seen.path
    )
    worker = start("b", "--revision", COMMIT).listening()
    assert hold.caught()
    child = _child_of(worker)
    worker.stop()
    _wait_until_gone(child)
    hold.release()
    hub.sent.clear()
    again = start("b", "--revision", COMMIT).ready()
    assert hub.sent == []
    assert answers(again)


def test_two_workers_that_fill_at_once_leave_one_whole_copy(s3: S3Server, bucket: str, start: Start) -> None:
    hold = s3.hold(lambda seen: _writes(seen, bucket))
    workers = [start("a"), start("b")]
    for worker in workers:
        worker.ready()
    assert hold.caught(2 * len(FILES)), "both write the same keys at the same time"
    hold.release()
    for worker in workers:
        worker.wait_for_line("model cache filled")
    assert list(s3.objects(bucket)) == sorted([MARKER, *(f"{COPY}/{name}" for name in FILES)])
    assert answers(start("c").ready())


def test_the_keys_are_on_no_command_line_and_in_no_log(s3: S3Server, bucket: str, start: Start) -> None:
    keys = s3.add_user()
    hold = s3.hold(lambda seen: _writes(seen, bucket))
    worker = start("a", keys=keys).ready()
    assert hold.caught()
    child = _child_of(worker)
    line = Path(f"/proc/{child}/cmdline").read_bytes().decode()
    assert "s5cmd" in line
    assert "--numworkers\x0050" in line
    for secret in (keys.access_key_id, keys.secret_access_key):
        assert secret not in line
    hold.release()
    worker.wait_for_line("model cache filled")
    assert keys.secret_access_key not in "\n".join(worker.lines)


def test_a_wrong_setting_ends_the_process_with_its_name(start_worker: StartWorker) -> None:
    worker = start_worker(MODEL, env={"MOORAGE_CACHE_SCOPE": "private", "MOORAGE_CACHE_URL": "https://x/y"})
    assert worker.exit_code() == 2
    assert "MOORAGE_CACHE_URL must begin with s3://" in worker.lines[-1]


def _writes(seen: SeenRequest, bucket: str) -> bool:
    return seen.method in ("PUT", "POST") and f"/{bucket}/" in seen.path


def _child_of(worker: WorkerProcess) -> int:
    """The process of s5cmd that a worker runs."""
    task = Path(f"/proc/{worker.process.pid}/task")
    children = [int(c) for thread in task.iterdir() for c in (thread / "children").read_text().split()]
    assert len(children) == 1, children
    return children[0]


def _wait_until_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([descriptor], [], [], 30)
        assert ready, "s5cmd outlived its worker"
    finally:
        os.close(descriptor)
