"""Fixtures: a factory of worker processes that ends what it started, and a worker for the sample model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# Test folders are no packages here (pytest's importlib mode), so what they share is put on the path.
sys.path.insert(0, str(Path(__file__).parent))

from worker_harness.running import DIGITS, WorkerProcess

StartWorker = Callable[..., WorkerProcess]

for _package in ("numpy", "onnxruntime", "tokenizers", "PIL"):
    if find_spec(_package) is None:
        pytest.skip(f"{_package} is not installed: pip install -e 'worker[onnx]'", allow_module_level=True)


@pytest.fixture(scope="module")
def start_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWorker]:
    """`start_worker(model, *options, env={})` starts a process; it is gone when the module's tests are."""
    started: list[WorkerProcess] = []
    home = str(tmp_path_factory.mktemp("home"))

    def start(model: Path | str, *options: str, env: dict[str, str] | None = None) -> WorkerProcess:
        quiet = {"HF_HOME": home, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": ""}
        worker = WorkerProcess(["--model", str(model), "--threads", "2", *options], {**quiet, **(env or {})})
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop()


@pytest.fixture(scope="module")
def digits(start_worker: StartWorker) -> WorkerProcess:
    return start_worker(DIGITS).ready()
