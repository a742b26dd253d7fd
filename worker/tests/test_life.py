"""The life of the process: up at once, ready when it is true, gone quietly, and loud when it cannot be."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper
from worker_harness import stepping, tiny_models
from worker_harness.running import DIGITS, StartWorker, WorkerProcess
from worker_harness.stepping import SteppingEngine

from moorage_worker.cache.results import ResultBucket
from moorage_worker.errors import LoadFailed
from moorage_worker.faces.context import ServingContext
from moorage_worker.faces.media_results import MediaResults
from moorage_worker.loading import load_model
from moorage_worker.logs import OneLineFormatter
from moorage_worker.pool import InferencePool, retry_after
from moorage_worker.process import Port, listen
from moorage_worker.readiness import Readiness
from moorage_worker.settings import parse_settings


def test_probes_of_a_ready_worker(digits: WorkerProcess) -> None:
    assert digits.get("/health").json() == {"status": "ok"}
    ready = digits.get("/ready").json()
    assert ready["status"] == "ready"
    assert 0 < ready["load_seconds"] < 30


def test_wrong_routes_and_bodies_are_problems(digits: WorkerProcess) -> None:
    missing = digits.get("/nothing")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    wrong_method = digits.get("/infer")
    assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "POST")
    for body in (b"{", b"[1]", b"", b"\xff"):
        malformed = httpx.post(digits.url + "/infer", content=body)
        assert (malformed.status_code, malformed.json()["code"]) == (400, "malformed_request")


def test_a_body_over_the_limit_is_413_and_one_below_is_read(digits: WorkerProcess) -> None:
    over = httpx.post(digits.url + "/infer", content=b" " * (32 * 1024 * 1024 + 1))
    assert over.status_code == 413
    below = httpx.post(digits.url + "/infer", content=b" " * (32 * 1024 * 1024))
    assert below.status_code == 400


def test_a_corrupt_graph_ends_the_process_with_the_cause_last(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes((DIGITS / "onnx" / "model.onnx").read_bytes()[:5000])
    worker = start_worker(tmp_path, "--model-id", "broken")
    assert worker.exit_code() == 1
    assert (
        "ERROR model broken failed to load: model.onnx cannot be loaded by ONNX Runtime" in worker.lines[-1]
    )
    assert "Traceback" not in "".join(worker.lines)


GRAPH = {"model.onnx": (DIGITS / "onnx" / "model.onnx").read_bytes()}


@pytest.mark.parametrize(
    ("files", "options", "cause"),
    [
        ({}, (), "no engine can serve this model"),
        ({}, ("--engine", "onnx"), "needs onnx/model.onnx or model.onnx"),
        ({**GRAPH, "config.json": b"{"}, (), "config.json is not valid JSON"),
        ({**GRAPH, "config.json": b"[]"}, (), "config.json must hold a JSON object"),
        ({**GRAPH, "config.json": b"\xff"}, (), "config.json cannot be read"),
        (GRAPH, ("--task", "text-classification"), "graph input pixel_values"),
        (GRAPH, ("--task", "image-classification"), "preprocessor_config.json is missing"),
        (GRAPH, ("--task", "feature-extraction"), "graph input pixel_values"),
    ],
)
def test_a_model_that_cannot_be_served_says_why(
    tmp_path: Path, files: dict[str, Any], options: Any, cause: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    settings = parse_settings(["--model", str(tmp_path), *options], {})
    with pytest.raises(LoadFailed, match=re.escape(cause)):
        load_model(settings, Readiness())


def test_a_model_that_loads_but_does_not_answer_is_not_ready(tmp_path: Path) -> None:
    # Shapes say any number of items, the graph takes exactly seven.
    nodes = [helper.make_node("Reshape", ["x", "seven"], ["y"])]
    ends = {"x": (TensorProto.FLOAT, ["N"])}, {"y": (TensorProto.FLOAT, [7])}
    tiny_models.save_graph(tmp_path, nodes, *ends, {"seven": np.array([7])})
    with pytest.raises(LoadFailed, match="warm-up inference failed"):
        load_model(parse_settings(["--model", str(tmp_path)], {}), Readiness())


def test_a_folder_that_is_not_there_and_a_port_that_is_taken(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    missing = start_worker(tmp_path / "nowhere")
    assert missing.exit_code() == 1
    assert "there is no folder" in missing.lines[-1]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        blocked = start_worker(DIGITS, "--port", str(taken.getsockname()[1]))
        assert blocked.exit_code() == 1
        assert "cannot listen" in blocked.lines[-1]


@pytest.fixture
def slow(start_worker: StartWorker, tmp_path: Path) -> WorkerProcess:
    return start_worker(tiny_models.slow(tmp_path), "--threads", "1", "--max-waiting", "0").ready()


class Request(threading.Thread):
    """A request in the background and its answer."""

    def __init__(self, worker: WorkerProcess, rounds: int) -> None:
        super().__init__(daemon=True)
        self._worker, self._rounds = worker, rounds
        self.status = 0
        self.start()

    def run(self) -> None:
        # The request that looks whether the worker is busy may itself be what it is busy with.
        while self.status in (0, 503):
            self.status = self._worker.post("/infer", {"inputs": {"rounds": self._rounds}}).status_code


def rounds_for(worker: WorkerProcess, seconds: float) -> int:
    """How many rounds this machine needs for an inference of at least about that long."""
    times: list[float] = []
    for _ in range(3):
        answer = worker.post("/infer", {"inputs": {"rounds": 20}}).json()
        times.append(answer["metadata"]["inference_time_ms"] / 1000)
    return max(1, round(20 * seconds / min(times)))


def busy(worker: WorkerProcess) -> httpx.Response:
    """The first answer that says the worker is full; a request in flight makes it so."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        response = worker.post("/infer", {"inputs": {"rounds": 0}})
        if response.status_code != 200:
            return response
    raise AssertionError("the worker never said that it is busy")


def test_a_full_queue_says_when_to_come_back_and_probes_still_answer(slow: WorkerProcess) -> None:
    request = Request(slow, rounds_for(slow, 1.0))
    refused = busy(slow)
    assert refused.status_code == 503
    assert refused.json()["code"] == "worker_busy"
    assert int(refused.headers["retry-after"]) >= 1
    assert slow.get("/health").status_code == 200
    request.join()
    assert request.status == 200
    assert slow.infer({"rounds": 0}) == {"largest": 1.0}


def test_sigterm_finishes_what_is_in_flight_and_exits_0(slow: WorkerProcess) -> None:
    request = Request(slow, rounds_for(slow, 1.0))
    busy(slow)
    slow.process.send_signal(signal.SIGTERM)
    slow.wait_for_line("stopped listening, 1 requests in flight")
    with pytest.raises(httpx.ConnectError):
        httpx.get(slow.url + "/health")
    assert slow.process.poll() is None
    request.join()
    assert request.status == 200
    assert slow.exit_code() == 0
    assert slow.lines[-1].endswith("stopped")


class Serving:
    """The service on a port, in this process, over an engine that steps."""

    def __init__(self, ports: list[Port], engine: SteppingEngine) -> None:
        self.url = ports[0].site.name
        self.engine = engine

    async def ask(self, inputs: object) -> httpx.Response:
        async with httpx.AsyncClient(timeout=20) as client:
            return await client.post(f"{self.url}/infer", json={"inputs": inputs})


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    settings = parse_settings(["--model", str(DIGITS), "--port", "0", "--threads", "1"], {})
    engine, readiness = SteppingEngine(), Readiness()
    readiness.model = stepping.loaded(engine)
    media = MediaResults(ResultBucket.of(settings.cache))
    ports = await listen(settings, ServingContext("m", "m", readiness, InferencePool(1, 10), media))
    yield Serving(ports, engine)
    engine.let_go.set()
    for port in ports:
        await port.runner.cleanup()


async def test_a_caller_that_goes_away_is_not_worked_for(serving: Serving) -> None:
    caller = asyncio.create_task(serving.ask("unwanted"))
    assert await asyncio.to_thread(serving.engine.started.wait, 20)
    waiting = asyncio.create_task(serving.ask("wanted"))
    caller.cancel()
    assert await asyncio.to_thread(serving.engine.stopped.wait, 20)
    serving.engine.let_go.set()
    assert (await waiting).json()["outputs"]["inputs"] == "wanted"
    assert serving.engine.asked == ["unwanted", "wanted"]


@pytest.mark.parametrize(
    ("path", "body", "member"),
    [("/infer", {"inputs": 1}, "detail"), ("/v2/models/m/infer", {"inputs": []}, "error")],
)
async def test_what_breaks_is_told_and_logged_without_secrets(
    serving: Serving,
    path: str,
    body: object,
    member: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_do_not_tell")
    caplog.handler.setFormatter(OneLineFormatter())
    serving.engine.failure = OSError("refused hf_do_not_tell")
    serving.engine.let_go.set()
    async with httpx.AsyncClient() as client:
        answer = await client.post(serving.url + path, json=body)
    assert (answer.status_code, answer.json()[member]) == (500, "OSError: refused <HF_TOKEN>")
    assert "refused <HF_TOKEN>" in caplog.text
    assert "hf_do_not_tell" not in caplog.text


@pytest.mark.parametrize(
    ("admitted", "threads", "mean", "expected"),
    [(1, 1, 0.0, 1), (10, 2, 0.5, 3), (10, 2, 100.0, 60), (4, 4, 1.2, 2)],
)
def test_retry_after_follows_the_measured_mean(
    admitted: int, threads: int, mean: float, expected: Any
) -> None:
    assert retry_after(admitted, threads, mean) == expected
