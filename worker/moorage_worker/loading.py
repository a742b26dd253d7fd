"""Brings one model from its source to its first answer, step by step, in the thread of its caller."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from moorage_worker.cache.progress import Progress, quiet
from moorage_worker.engines.catalog import load_engine
from moorage_worker.engines.load_options import LoadOptions
from moorage_worker.errors import LoadFailed, cause_line
from moorage_worker.readiness import LoadedModel, Readiness, Stage
from moorage_worker.settings import WorkerSettings
from moorage_worker.source import fetch

log = logging.getLogger(__name__)


def load_model(settings: WorkerSettings, readiness: Readiness, progress: Progress = quiet) -> LoadedModel:
    """Fetch, load and warm up, telling `readiness` each stage and `progress` the bytes of the download.

    Blocks; raises LoadFailed with the cause. What the fetch has left for later runs on in the background.
    """
    started = time.monotonic()
    readiness.stage = Stage.DOWNLOADING
    local = fetch(settings, progress)
    readiness.stage = Stage.LOADING
    options = LoadOptions(
        settings.task, settings.threads, settings.dtype, settings.variant, progress=readiness.progress
    )
    engine = load_engine(local.engine, local.folder, options)
    readiness.stage = Stage.WARMING
    try:
        engine.warm_up()
    except LoadFailed:
        raise
    except Exception as error:  # whatever the runtime raises, the model does not answer
        raise LoadFailed(
            f"the model loaded, but its warm-up inference failed: {cause_line(error)}"
        ) from error
    load_seconds = round(time.monotonic() - started, 3)
    if local.after_ready is not None:
        threading.Thread(
            target=_run_quietly, args=(local.after_ready,), name="after-ready", daemon=True
        ).start()
    return LoadedModel(engine, local.engine, local.version, load_seconds, local.from_cache)


def _run_quietly(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:  # the model serves: nothing behind it may end that
        log.exception("unexpected error behind a model that is ready")
