"""One job on the loaded model, from what was asked to how it ended. Never raises for what the job did."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import orjson

from moorage_worker.errors import EngineFailed, RequestError, ResultTooLarge, TookTooLong, cause_line
from moorage_worker.faces.answers import answer
from moorage_worker.faces.job_progress import JobProgress
from moorage_worker.faces.jobs import WARM_UP, request_of, running, warmed_up
from moorage_worker.faces.media_results import MediaResults
from moorage_worker.faces.problems import problem_members
from moorage_worker.faces.runs import WatchedRun
from moorage_worker.pool import InferencePool
from moorage_worker.queue.messages import JobMessage
from moorage_worker.queue.records import Outcome, Status
from moorage_worker.readiness import LoadedModel

log = logging.getLogger(__name__)

MAX_RESULT_BYTES = 64 * 1024 * 1024

SendProgress = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Work:
    """The model, and where its inferences run."""

    model_id: str
    loaded: LoadedModel
    pool: InferencePool
    media: MediaResults

    async def outcome(self, job: JobMessage, send_progress: SendProgress) -> Outcome:
        """How the job ended. Cancelled, it stops the engine where that can stop."""
        run: WatchedRun | None = None
        try:
            async with JobProgress(lambda word: send_progress(orjson.dumps(word))) as progress:
                run = WatchedRun(lambda done, what: progress.tell(running(done, what)))
                async with asyncio.timeout(job.execution_seconds):
                    return Outcome(Status.COMPLETED, output=await self._output(job, run))
        except TimeoutError:
            return timed_out(f"the job ran for longer than the {job.execution_seconds:g} s that it may")
        except RequestError as error:
            if isinstance(error, EngineFailed):
                log.error("job %s: %s", job.id, error)  # noqa: TRY400 - told without a traceback
            return failed(error)
        except Exception as error:  # a bug: the log gets the traceback, the caller the kind
            log.exception("job %s failed", job.id)
            return failed(RequestError(cause_line(error)))
        finally:
            if run is not None:
                run.cancel()  # whoever ran too long or was given up must not go on

    async def _output(self, job: JobMessage, run: WatchedRun) -> bytes:
        if job.asked == WARM_UP:
            return orjson.dumps(warmed_up(self.loaded))
        found = await self.pool.run(partial(self._infer, job, run))
        if len(found) > MAX_RESULT_BYTES:
            raise ResultTooLarge(
                f"the result has {len(found)} bytes, and at most {MAX_RESULT_BYTES} are kept; "
                'with parameters {"result": "s3"} files go to your bucket instead'
            )
        return found

    def _infer(self, job: JobMessage, run: WatchedRun) -> bytes:
        return answer(self.loaded, self.model_id, request_of(job.asked), self.media, run)


def failed(error: RequestError) -> Outcome:
    return Outcome(Status.FAILED, error=orjson.dumps(problem_members(error)))


def timed_out(detail: str) -> Outcome:
    return Outcome(Status.TIMED_OUT, error=orjson.dumps(problem_members(TookTooLong(detail))))
