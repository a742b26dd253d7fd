"""The life of the process as a RunPod job handler: the `runpod` package takes jobs, the model loads behind.

The package owns the event loop and forks a process that tells RunPod that this one lives. It calls back for
the number of jobs to take before it takes the first, which is where our part begins: the loop runs then, the
fork is done (it must not copy a loading thread's locks), and the package's signal handlers are there to be
improved. Left alone they would hold a stopped worker until its long poll for jobs is over.
"""

from __future__ import annotations

import asyncio
import io
import logging
import signal
import sys
from concurrent.futures import Future

from moorage_worker.arrival import Arrival
from moorage_worker.cache.results import ResultBucket
from moorage_worker.ending import EXIT_FAILED, EXIT_OK, end_process
from moorage_worker.errors import cause_line
from moorage_worker.faces.jobs import Job, JobFace
from moorage_worker.faces.media_results import MediaResults
from moorage_worker.pool import InferencePool
from moorage_worker.readiness import LoadedModel
from moorage_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

PICK_UP_SECONDS = 0.3  # the package begins a job that it has taken after a tenth of a second at most
ANSWER_SECONDS = 10.0  # for jobs that waited for a model in vain to hear so


def serve_jobs(settings: WorkerSettings) -> int:
    """Until a signal or a failed load ends it, which may be before this returns; returns the exit code."""
    import runpod  # half a second that only this face has to spend

    service = _JobService(settings)
    sys.argv = sys.argv[:1]  # the package reads flags of its own there
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what it prints must not come after our last line
    runpod.serverless.start({"handler": service.face.handle, "concurrency_modifier": service.concurrency})
    return service.last_words()


async def send_progress(job: Job, word: object) -> None:
    """As `runpod.serverless.progress_update` does, but returns when it is sent."""
    from runpod.http_client import AsyncClientSession
    from runpod.serverless.modules.rp_http import send_result

    async with AsyncClientSession() as session:
        await send_result(session, {"status": "IN_PROGRESS", "output": word}, job)


class _JobService:
    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._arrival = Arrival(settings)
        # The package bounds the jobs in hand. One that was cancelled may keep its thread for a while, and the
        # next has to wait then: a job that was taken cannot be sent away to come back later.
        pool = InferencePool(settings.threads, max_waiting=sys.maxsize)
        media = MediaResults(ResultBucket.of(settings.cache))
        self.face = JobFace(settings.model_id, self._arrival, pool, media, send_progress)
        self._begun = False
        self._failure: BaseException | None = None
        self._ending: asyncio.Task[None] | None = None

    def concurrency(self, _current: int) -> int:
        """How many jobs to have at a time; asked in the package's loop before each look for jobs."""
        if not self._begun:
            self._begun = True
            self._begin(asyncio.get_running_loop())
        return self._settings.threads

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        take_no_more = signal.getsignal(signal.SIGTERM)

        def end() -> None:
            if callable(take_no_more):
                take_no_more(signal.SIGTERM, None)
            if self._ending is None:
                self._ending = loop.create_task(self._end())

        def fail(loaded: Future[LoadedModel]) -> None:
            self._failure = loaded.exception()
            if self._failure is not None:
                loop.call_soon_threadsafe(end)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        log.info("taking jobs for model %s, %d at a time", self._settings.model_id, self._settings.threads)
        self._arrival.loaded.add_done_callback(fail)
        self._arrival.begin()

    async def _end(self) -> None:
        """Finish the jobs in hand, and do not wait for the package's polls to be over.

        What the platform hands out into a poll after this it has to hand out again, as with any worker that
        goes away. After a signal it is the platform's to say how long the jobs may take.
        """
        log.info("taking no more jobs, %d in hand", self.face.in_hand)
        await asyncio.sleep(PICK_UP_SECONDS)
        if self._failure is None:
            await self.face.settled()
        else:
            await asyncio.wait([asyncio.ensure_future(self.face.settled())], timeout=ANSWER_SECONDS)
        end_process(self.last_words())

    def last_words(self) -> int:
        """Logs why the process ends; returns its exit code."""
        if self._failure is None:
            log.info("stopped")
            return EXIT_OK
        log.error("model %s failed to load: %s", self._settings.model_id, cause_line(self._failure))
        return EXIT_FAILED
