"""What one worker process is told at start: command line first, environment for the host's limits.

Kept as plain values so that tests and the rest of the worker never read `argparse` or the environment.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moorage_worker.cache.errors import CacheSettingsError
from moorage_worker.cache.settings import CacheSettings
from moorage_worker.engines.catalog import ENGINES
from moorage_worker.model_layout import TASKS
from moorage_worker.state_reports import ReportSettings

# What a provider sets, and the flag that it stands for. PORT and PORT_HEALTH are RunPod's own.
_VARIABLES = {
    "MOORAGE_WORKER_MODEL": "--model",
    "MOORAGE_WORKER_MODEL_ID": "--model-id",
    "MOORAGE_WORKER_REVISION": "--revision",
    "MOORAGE_WORKER_ENGINE": "--engine",
    "MOORAGE_WORKER_TASK": "--task",
    "MOORAGE_WORKER_FACE": "--face",
    "MOORAGE_WORKER_DTYPE": "--dtype",
    "MOORAGE_WORKER_VARIANT": "--variant",
    "PORT": "--port",
    "PORT_HEALTH": "--health-port",
}
THREADS_VARIABLE = "MOORAGE_WORKER_THREADS"
MAX_DEFAULT_THREADS = 8
MAX_THREADS = 256


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """One model, where to get it, how to serve it.

    `model` is a Hub repository id or a local folder. `engine` and `task` are None for "find out".
    """

    model: str
    model_id: str
    revision: str | None
    engine: str | None
    task: str | None
    host: str
    port: int
    cache_dir: Path | None
    threads: int
    max_waiting: int
    hub_patience: float
    cache: CacheSettings = CacheSettings()
    face: str = "http"  # or "jobs"
    dtype: str | None = None
    variant: str | None = None
    health_port: int | None = None  # of a load balancer's own; None: the same as `port`
    health_path: str = "/ping"
    reports: ReportSettings | None = None


def parse_settings(argv: Sequence[str], environ: Mapping[str, str]) -> WorkerSettings:
    """Read the command line. Exits with code 2 and a usage line on a mistake, as argparse does."""
    parser = _parser(_default_threads(environ))
    args = parser.parse_args([*_from_environment(environ), *argv])
    if not args.model.strip():
        parser.error("--model must not be empty")
    try:
        cache = CacheSettings.read(environ)
    except CacheSettingsError as error:
        parser.error(str(error))
    return WorkerSettings(
        model=args.model,
        model_id=args.model_id or _name_of(args.model),
        revision=args.revision,
        engine=None if args.engine == "auto" else args.engine,
        task=None if args.task == "auto" else args.task,
        host=args.host,
        port=args.port,
        cache_dir=args.cache_dir,
        threads=args.threads,
        max_waiting=args.max_waiting,
        hub_patience=args.hub_patience,
        cache=cache,
        face=args.face,
        dtype=args.dtype,
        variant=args.variant,
        health_port=args.health_port,
        health_path=environ.get("HEALTH_CHECK_PATH") or "/ping",
        reports=ReportSettings.read(environ),
    )


def _from_environment(environ: Mapping[str, str]) -> list[str]:
    """The variables as the flags that they stand for, before those that were given, which win."""
    given = {flag: environ[name] for name, flag in _VARIABLES.items() if environ.get(name)}
    if "--port" in given:
        given["--host"] = "0.0.0.0"  # noqa: S104  # a load balancer comes from outside
    return [f"{flag}={value}" for flag, value in given.items()]


def _parser(default_threads: int) -> argparse.ArgumentParser:
    known = ", ".join(f"{name} ({flag})" for name, flag in _VARIABLES.items())
    parser = argparse.ArgumentParser(
        prog="moorage-worker",
        description="Serve one model: over HTTP, or as a RunPod job handler.",
        epilog=f"Variables in the place of flags: {known}. Flags win.",
    )
    parser.add_argument("--face", default="http", choices=["http", "jobs"], help="how requests come in")
    parser.add_argument("--dtype", help="of the computation; default: by device and files")
    parser.add_argument("--variant", help="of the weight files, such as fp16")
    parser.add_argument("--health-port", type=_WholeNumber(1, 65535), help="of a load balancer's probe")
    parser.add_argument("--model", required=True, help="Hugging Face repository id, or a local folder")
    parser.add_argument("--model-id", help="name that callers use; default: the model's own")
    parser.add_argument("--revision", help="branch, tag or commit of the repository")
    parser.add_argument("--engine", default="auto", choices=["auto", *ENGINES])
    parser.add_argument("--task", default="auto", choices=["auto", *TASKS])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--port", type=_WholeNumber(0, 65535), default=8000, help="0 takes a free one and logs it"
    )
    parser.add_argument("--cache-dir", type=Path, help="folder for downloads; default: the Hub client's own")
    parser.add_argument(
        "--threads",
        type=_WholeNumber(1, MAX_THREADS),
        default=default_threads,
        help=f"inferences at a time, and the engine's threads; default: {THREADS_VARIABLE}, else the cores",
    )
    parser.add_argument(
        "--max-waiting",
        type=_WholeNumber(0, 100_000),
        default=128,
        help="requests that may wait for a thread before the next is answered 503",
    )
    parser.add_argument(
        "--hub-patience",
        type=_WholeNumber(0, 86_400),
        default=600,
        help="seconds to go on trying while the Hub cannot be reached",
    )
    return parser


@dataclass(frozen=True, slots=True)
class _WholeNumber:
    low: int
    high: int

    def __call__(self, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = self.low - 1
        if not self.low <= value <= self.high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {self.low} to {self.high}, got {text!r}"
            )
        return value


def _default_threads(environ: Mapping[str, str]) -> int:
    asked = environ.get(THREADS_VARIABLE, "")
    if asked.isdecimal() and 1 <= int(asked) <= MAX_THREADS:
        return int(asked)
    return min(_usable_cores(), MAX_DEFAULT_THREADS)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _name_of(model: str) -> str:
    folder = Path(model)
    return folder.resolve().name if folder.is_dir() else model
