"""What one worker process is told at start: flags by people, variables by providers. Flags win.

Kept as plain values so that tests and the rest of the worker never read `argparse` or the environment.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from moorage_worker.cache.settings import CacheSettings
from moorage_worker.engines.catalog import ENGINES
from moorage_worker.engines.load_options import DTYPES
from moorage_worker.errors import SettingsError
from moorage_worker.model_layout import TASKS
from moorage_worker.options import Option, WholeNumber
from moorage_worker.queue.settings import QueueSettings
from moorage_worker.state_reports import ReportSettings

HTTP, JOBS, QUEUE, QUEUE_FRONT, QUEUE_REMOVAL = "http", "jobs", "queue", "queue_front", "queue_removal"
MAX_DEFAULT_THREADS = 8
MAX_THREADS = 256
HEALTH_PATH_VARIABLE = "HEALTH_CHECK_PATH"
QUEUE_VARIABLE = "RUNPOD_WEBHOOK_GET_JOB"  # set in every worker of a queue endpoint

_OPTIONS = (
    Option("--model", "Hugging Face repository id, or a local folder", "MOORAGE_WORKER_MODEL", default=""),
    Option("--model-id", "name that callers use; default: the model's own", "MOORAGE_WORKER_MODEL_ID"),
    Option("--revision", "branch, tag or commit of the repository", "MOORAGE_WORKER_REVISION"),
    Option("--engine", "what runs it", "MOORAGE_WORKER_ENGINE", choices=("auto", *ENGINES), default="auto"),
    Option("--task", "what it does", "MOORAGE_WORKER_TASK", choices=("auto", *TASKS), default="auto"),
    Option(
        "--face",
        "how requests come: over HTTP, as jobs of a RunPod queue, or of a RabbitMQ queue; queue_front fills "
        "that over HTTP, without a model, and queue_removal takes it away",
        "MOORAGE_WORKER_FACE",
        choices=(HTTP, JOBS, QUEUE, QUEUE_FRONT, QUEUE_REMOVAL),
        default=HTTP,
    ),
    Option("--dtype", "of the weights; default: by device", "MOORAGE_WORKER_DTYPE", choices=DTYPES),
    Option("--variant", "of the weight files, such as fp16", "MOORAGE_WORKER_VARIANT"),
    Option("--host", "to listen on; default: 127.0.0.1, or 0.0.0.0 where the port is told by PORT"),
    Option("--port", "0 takes a free one and logs it", "PORT", WholeNumber(0, 65535), default=8000),
    Option(
        "--health-port",
        "to listen on for a load balancer's probe; default: the port itself",
        "PORT_HEALTH",
        WholeNumber(0, 65535),
    ),
    Option("--cache-dir", "folder for downloads; default: the Hub client's own", type=Path),
    Option(
        "--threads",
        f"inferences at a time, and the engine's threads; default: the cores, {MAX_DEFAULT_THREADS} at most",
        "MOORAGE_WORKER_THREADS",
        WholeNumber(1, MAX_THREADS),
    ),
    Option(
        "--max-waiting",
        "requests that may wait for a thread before the next is answered 503",
        type=WholeNumber(0, 100_000),
        default=128,
    ),
    Option(
        "--hub-patience",
        "seconds to go on trying while the Hub cannot be reached",
        type=WholeNumber(0, 86_400),
        default=600,
    ),
)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """One model, where to get it, how to serve it.

    `model` is a Hub repository id or a local folder. `engine` and `task` are None for "find out"; `dtype` and
    `variant` are as in LoadOptions. A load balancer's probe asks `health_path`, on `health_port` where that
    is another one than `port`. Without `reports` the worker's state is told to nobody. `queue` is there for
    the faces that need it.
    """

    model: str
    model_id: str
    revision: str | None
    engine: str | None
    task: str | None
    face: str
    dtype: str | None
    variant: str | None
    host: str
    port: int
    health_port: int | None
    health_path: str
    cache_dir: Path | None
    threads: int
    max_waiting: int
    hub_patience: float
    cache: CacheSettings
    reports: ReportSettings | None
    queue: QueueSettings | None = None


def parse_settings(argv: Sequence[str], environ: Mapping[str, str]) -> WorkerSettings:
    """Read command line and environment. Exits with code 2 and the rule that was broken on a mistake."""
    parser = argparse.ArgumentParser(
        prog="moorage-worker",
        allow_abbrev=False,
        description="Serve one model: over HTTP, as a RunPod job handler, or from a RabbitMQ queue.",
        epilog="A variable in brackets stands for its flag; flags win. The cache, reports and the queue have "
        "variables of their own.",
    )
    for option in _OPTIONS:
        option.add_to(parser, environ)
    args = parser.parse_args(argv)
    if not args.model.strip() and args.face not in (QUEUE_FRONT, QUEUE_REMOVAL):
        parser.error("--model or MOORAGE_WORKER_MODEL must be set, and not empty")
    if args.face == JOBS:
        _check_job_face(parser, environ)
    try:
        cache, reports = CacheSettings.read(environ), ReportSettings.read(environ)
        queue = QueueSettings.read(environ) if args.face in (QUEUE, QUEUE_FRONT, QUEUE_REMOVAL) else None
    except SettingsError as error:
        parser.error(str(error))
    return WorkerSettings(
        model=args.model,
        model_id=args.model_id or _name_of(args.model),
        revision=args.revision,
        engine=None if args.engine == "auto" else args.engine,
        task=None if args.task == "auto" else args.task,
        face=args.face,
        dtype=args.dtype,
        variant=args.variant,
        host=args.host or _default_host(argv, environ),
        port=args.port,
        health_port=args.health_port if args.health_port != args.port else None,
        health_path=_health_path(parser, environ),
        cache_dir=args.cache_dir,
        threads=args.threads or min(_usable_cores(), MAX_DEFAULT_THREADS),
        max_waiting=args.max_waiting,
        hub_patience=args.hub_patience,
        cache=cache,
        reports=reports,
        queue=queue,
    )


def _check_job_face(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    if not environ.get(QUEUE_VARIABLE):
        parser.error(
            f"--face jobs needs {QUEUE_VARIABLE}, which RunPod sets in the workers of a queue endpoint; "
            "anywhere else leave --face and MOORAGE_WORKER_FACE out"
        )
    if find_spec("runpod") is None:
        parser.error("--face jobs needs the package runpod; run: pip install 'moorage-worker[runpod]'")


def _default_host(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """A load balancer, which tells the port by PORT, comes from outside; a port that was asked for by hand is
    this machine's affair, whatever PORT is meant for there."""
    by_hand = any(word.partition("=")[0] == "--port" for word in argv)
    return "0.0.0.0" if environ.get("PORT") and not by_hand else "127.0.0.1"  # noqa: S104


def _health_path(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> str:
    path = environ.get(HEALTH_PATH_VARIABLE, "").strip() or "/ping"
    if not re.fullmatch(r"/[\w.~/-]*", path, re.ASCII):
        parser.error(f"{HEALTH_PATH_VARIABLE} must be a path such as /ping, got {path!r}")
    return path


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _name_of(model: str) -> str:
    folder = Path(model)
    return folder.resolve().name if folder.is_dir() else model
