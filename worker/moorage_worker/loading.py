"""Brings one model from its source to its first answer, step by step, in the thread of its caller."""

from __future__ import annotations

import time

from moorage_worker.engines.catalog import load_engine
from moorage_worker.engines.load_options import LoadOptions
from moorage_worker.errors import LoadFailed, cause_line
from moorage_worker.readiness import LoadedModel, Readiness, Stage
from moorage_worker.settings import WorkerSettings
from moorage_worker.source import fetch


def load_model(settings: WorkerSettings, readiness: Readiness) -> LoadedModel:
    """Fetch, load and warm up, telling `readiness` each stage. Blocks; raises LoadFailed with the cause."""
    started = time.monotonic()
    readiness.stage = Stage.DOWNLOADING
    local = fetch(settings)
    readiness.stage = Stage.LOADING
    engine = load_engine(local.engine, local.folder, LoadOptions(settings.task, settings.threads))
    readiness.stage = Stage.WARMING
    try:
        engine.warm_up()
    except LoadFailed:
        raise
    except Exception as error:  # whatever the runtime raises, the model does not answer
        raise LoadFailed(
            f"the model loaded, but its warm-up inference failed: {cause_line(error)}"
        ) from error
    return LoadedModel(engine, local.engine, local.version, round(time.monotonic() - started, 3))
