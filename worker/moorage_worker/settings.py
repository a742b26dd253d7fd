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


def parse_settings(argv: Sequence[str], environ: Mapping[str, str]) -> WorkerSettings:
    """Read the command line. Exits with code 2 and a usage line on a mistake, as argparse does."""
    parser = _parser(_default_threads(environ))
    args = parser.parse_args(argv)
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
    )


def _parser(default_threads: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moorage-worker", description="Serve one model over HTTP.")
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
