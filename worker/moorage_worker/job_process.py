"""The life of the process as a RunPod job handler: the `runpod` package takes jobs, the model loads behind.

A model that cannot be loaded ends the process with code 1 and the cause as its last word, after the jobs that
waited for it had a moment to say so.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from concurrent.futures import Future

from moorage_worker.arrival import Arrival
from moorage_worker.cache.results import ResultBucket
from moorage_worker.errors import cause_line
from moorage_worker.faces.jobs import JobFace
from moorage_worker.faces.media_results import MediaResults
from moorage_worker.pool import InferencePool
from moorage_worker.process import EXIT_FAILED, EXIT_OK, end_process
from moorage_worker.readiness import LoadedModel
from moorage_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

TELL_SECONDS = 2.0  # for the answers of jobs that waited in vain


def serve_jobs(settings: WorkerSettings) -> int:
    """Until RunPod or a signal ends it; returns the exit code. Does not return when the load fails."""
    import runpod  # here: half a second that only this face has to spend

    arrival = Arrival(settings)
    pool = InferencePool(settings.threads, settings.max_waiting)
    face = JobFace(
        settings.model_id,
        arrival.loaded,
        pool,
        MediaResults(ResultBucket.of(settings.cache)),
        runpod.serverless.progress_update,
    )
    arrival.loaded.add_done_callback(_end_if_failed)
    arrival.begin()
    sys.argv = sys.argv[:1]  # the package reads flags of its own there
    runpod.serverless.start(
        {"handler": face.handle, "concurrency_modifier": lambda _current: settings.threads}
    )
    return EXIT_OK


def _end_if_failed(loaded: Future[LoadedModel]) -> None:
    error = loaded.exception()
    if error is not None:
        threading.Thread(target=_end, args=(error,), name="end").start()


def _end(error: BaseException) -> None:
    time.sleep(TELL_SECONDS)
    log.error("the model failed to load: %s", cause_line(error))
    end_process(EXIT_FAILED)
