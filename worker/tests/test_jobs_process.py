"""The job face as a process under RunPod's own worker loop: the real `runpod` package, another data plane."""

from __future__ import annotations

import base64
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_harness import tiny_models
from worker_harness.callbacks import SECRET, Receiver
from worker_harness.data_plane import DataPlane
from worker_harness.hub import COMMIT, Hub
from worker_harness.running import DIGITS, StartWorker, WorkerProcess

FOUR = base64.b64encode((DIGITS / "samples" / "4.png").read_bytes()).decode()
ENDLESS = {"inputs": {"rounds": 10**7}}
WARM_UP = {"moorage": "warm_up"}

StartHubWorker = Callable[..., WorkerProcess]  # (plane, env=None)


@pytest.fixture
def plane() -> Iterator[DataPlane]:
    with DataPlane().serving() as serving:
        yield serving


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """The sample model as `team/digits`, and as `team/broken` with a graph that is cut short."""
    broken = shutil.copytree(DIGITS, tmp_path / "broken")
    graph = broken / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:5000])
    with Hub({"team/digits": DIGITS, "team/broken": broken}).serving() as serving:
        yield serving


@pytest.fixture
def start_loading(start_worker: StartWorker, hub: Hub, plane: DataPlane, tmp_path: Path) -> StartWorker:
    """Starts a worker that gets no file from the Hub before `hub.let_files_through` is set."""

    def start(model: str = "team/digits", env: dict[str, str] | None = None) -> WorkerProcess:
        hub.let_files_through.clear()
        hub.file_asked.clear()
        whole = {**plane.environment(), "HF_ENDPOINT": hub.url, **(env or {})}
        worker = start_worker(model, "--cache-dir", str(tmp_path / "cache"), env=whole)
        assert hub.file_asked.wait(30), worker.lines
        return worker

    return start


@pytest.fixture(scope="module")
def digits_plane() -> Iterator[DataPlane]:
    with DataPlane().serving() as serving:
        yield serving


@pytest.fixture(scope="module")
def digits_jobs(start_worker: StartWorker, digits_plane: DataPlane) -> WorkerProcess:
    worker = start_worker(DIGITS, env=digits_plane.environment())
    worker.wait_for_line("ready in")
    return worker


def test_a_job_is_answered_as_a_request_over_http_would_be(
    digits_jobs: WorkerProcess, digits_plane: DataPlane, digits: WorkerProcess
) -> None:
    asked = {"inputs": FOUR, "parameters": {"top_k": 2}}
    output = digits_plane.output(digits_plane.add(asked))
    over_http = digits.post("/infer", asked).json()
    assert output["outputs"] == over_http["outputs"]
    assert output["outputs"][0]["label"] == "4"
    assert output["model_id"] == over_http["model_id"]
    assert output.keys() == over_http.keys()
    assert output["metadata"].keys() == over_http["metadata"].keys()


def test_a_prompt_is_short_for_inputs_and_the_rest_for_parameters(
    digits_jobs: WorkerProcess, digits_plane: DataPlane
) -> None:
    output = digits_plane.output(digits_plane.add({"prompt": FOUR, "top_k": 1}))
    assert [best["label"] for best in output["outputs"]] == ["4"]


@pytest.mark.parametrize(
    ("asked", "field", "rule"),
    [
        ({"inputs": FOUR, "parameters": {"top_k": "many"}}, "parameters.top_k", "range"),
        ({"parameters": {}}, "inputs", "required"),
        ({"inputs": FOUR, "extra": 1}, "extra", "unknown"),
        ({"moorage": "something else"}, "moorage", "unknown"),
        ([FOUR], "input", "type"),
        ({"inputs": FOUR, "parameters": {"result": "s3"}}, "parameters.result", "no_bucket"),
        ({"prompt": FOUR, "parameters": "none"}, "parameters", "type"),
    ],
)
def test_a_wrong_job_fails_with_a_problem_that_names_the_field(
    digits_jobs: WorkerProcess, digits_plane: DataPlane, asked: Any, field: str, rule: str
) -> None:
    problem = digits_plane.problem(digits_plane.add(asked))
    assert (problem["status"], problem["code"]) == (422, "invalid_request")
    [error] = problem["errors"]
    assert (error["field"], error["rule"]) == (field, rule)


def test_a_warm_up_of_a_ready_worker_says_how_it_became_ready(
    digits_jobs: WorkerProcess, digits_plane: DataPlane
) -> None:
    output = digits_plane.output(digits_plane.add(WARM_UP))
    seconds = output.pop("load_seconds")
    assert seconds > 0
    assert output == {"ready": True, "from_cache": False, "version": "local"}


def test_an_engine_that_breaks_fails_its_job_only(
    start_worker: StartWorker, plane: DataPlane, tmp_path: Path
) -> None:
    worker = start_worker(tiny_models.picker(tmp_path), env=plane.environment())
    problem = plane.problem(plane.add({"inputs": {"index": [7]}}))
    assert (problem["status"], problem["code"]) == (500, "engine_failed")
    assert "Traceback" not in problem["detail"]
    assert plane.output(plane.add({"inputs": {"index": [1]}}))["outputs"] == {"value": [2.0]}
    worker.wait_for_line("ERROR job ")


def test_a_job_that_comes_early_waits_and_tells_how_far_the_model_is(
    start_loading: StartWorker, hub: Hub, plane: DataPlane
) -> None:
    job, warm_up = plane.add({"inputs": FOUR, "parameters": {"top_k": 1}}), plane.add(WARM_UP)
    start_loading()
    plane.until(lambda seen: {job, warm_up} <= seen.progress.keys(), "progress")
    assert all(said[0]["stage"] == "downloading" for said in plane.seen.progress.values())
    assert plane.seen.answers == {}
    hub.let_files_through.set()
    assert plane.output(job)["outputs"][0]["label"] == "4"
    ready = plane.output(warm_up)
    assert (ready["ready"], ready["from_cache"], ready["version"]) == (True, False, COMMIT)


def test_a_cancelled_job_is_given_up_and_the_others_go_on(
    start_worker: StartWorker, plane: DataPlane, tmp_path: Path
) -> None:
    worker = start_worker(tiny_models.slow(tmp_path), env=plane.environment())
    cancelled = plane.add(ENDLESS)
    plane.until(lambda seen: any(cancelled in jobs for jobs in seen.pinged), "ping with the job")
    worker.wait_for_line("ready in")
    plane.stop(cancelled)
    worker.wait_for_line("Job stopped.")
    # The engine cannot stop in the middle of a graph: its thread is busy, the other one is not.
    assert plane.output(plane.add({"inputs": {"rounds": 0}}))["outputs"] == {"largest": 1.0}
    assert cancelled not in plane.seen.answers
    worker.stop()


def test_a_job_that_is_cancelled_while_it_waits_leaves_the_model_to_the_others(
    start_loading: StartWorker, hub: Hub, plane: DataPlane
) -> None:
    cancelled, other = plane.add(WARM_UP), plane.add(WARM_UP)
    worker = start_loading()
    plane.until(lambda seen: {cancelled, other} <= seen.progress.keys(), "progress")
    plane.stop(cancelled)
    worker.wait_for_line("Job stopped.")
    hub.let_files_through.set()
    assert plane.output(other)["ready"] is True
    assert cancelled not in plane.seen.answers


def test_a_model_that_cannot_be_loaded_fails_the_jobs_that_waited_and_ends_the_process(
    start_loading: StartWorker, hub: Hub, plane: DataPlane
) -> None:
    job, warm_up = plane.add({"inputs": FOUR}), plane.add(WARM_UP)
    worker = start_loading("team/broken")
    plane.until(lambda seen: {job, warm_up} <= seen.progress.keys(), "progress")
    hub.let_files_through.set()
    for problem in (plane.problem(job), plane.problem(warm_up)):
        assert (problem["status"], problem["code"]) == (503, "model_failed_to_load")
        assert "model.onnx cannot be loaded by ONNX Runtime" in problem["detail"]
    assert worker.exit_code() == 1
    assert "ERROR model team/broken failed to load: model.onnx cannot be loaded" in worker.lines[-1]
    assert worker.nothing_left()


def test_sigterm_finishes_the_job_in_hand_and_takes_no_other(
    start_worker: StartWorker, plane: DataPlane, tmp_path: Path
) -> None:
    worker = start_worker(tiny_models.slow(tmp_path), env=plane.environment())
    worker.wait_for_line("ready in")
    job = plane.add({"inputs": {"rounds": 1000}})
    worker.wait_for_line("Started.")
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_line("taking no more jobs, 1 in hand")
    assert plane.output(job)["outputs"] == {"largest": 1.0}
    # The polls of the package are still held open: the process does not wait for them.
    assert worker.exit_code() == 0
    assert worker.lines[-1].endswith("stopped")
    assert worker.nothing_left()


def test_sigterm_while_the_model_loads_waits_for_jobs_and_for_nothing_else(
    start_loading: StartWorker, hub: Hub, plane: DataPlane
) -> None:
    waiting = plane.add(WARM_UP)
    worker = start_loading()
    plane.until(lambda seen: waiting in seen.progress, "progress")
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_line("taking no more jobs, 1 in hand")
    hub.let_files_through.set()
    assert plane.output(waiting)["ready"] is True
    assert worker.exit_code() == 0

    nobody_waits = start_loading("team/broken")
    nobody_waits.process.send_signal(signal.SIGTERM)
    assert nobody_waits.exit_code() == 0


def test_nothing_that_a_worker_says_holds_a_secret(
    start_loading: StartWorker, hub: Hub, plane: DataPlane
) -> None:
    secrets = {
        "HF_TOKEN": "hf_" + "t" * 34,
        "MOORAGE_CACHE_ACCESS_KEY_ID": "AKIA" + "K" * 16,
        "MOORAGE_CACHE_SECRET_ACCESS_KEY": "s" * 40,
    }
    private = {
        "MOORAGE_CACHE_SCOPE": "private",
        "MOORAGE_CACHE_URL": "s3://a-bucket/models",
        "MOORAGE_CACHE_ENDPOINT_URL": "http://127.0.0.1:9",
    }
    with Receiver().serving() as receiver:
        job, upload = plane.add({"inputs": "x"}), plane.add({"inputs": FOUR, "parameters": {"result": 7}})
        env = {**secrets, **private, **receiver.environment(), "RUNPOD_LOG_LEVEL": "DEBUG"}
        worker = start_loading(env=env)
        hub.let_files_through.set()
        plane.problem(job)
        plane.problem(upload)
        receiver.until(lambda one: one.report["state"] == "ready")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.exit_code() == 0
        said = repr([worker.lines, plane.seen, [one.report for one in receiver.deliveries]])
    assert "the storage endpoint cannot be reached" in said, "the cache was in use"
    assert "JobScaler" in said, "the package said all that it can say"
    for secret in (*secrets.values(), SECRET, SECRET.removeprefix("whsec_"), plane.key):
        assert secret not in said


def test_the_job_face_outside_of_runpod_says_what_is_missing(start_worker: StartWorker) -> None:
    worker = start_worker(DIGITS, env={"MOORAGE_WORKER_FACE": "jobs"})
    assert worker.exit_code() == 2
    assert "RUNPOD_WEBHOOK_GET_JOB" in worker.lines[-1]
