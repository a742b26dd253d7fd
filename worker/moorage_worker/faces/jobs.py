"""RunPod's job handler: the third face of the worker.

The `runpod` package takes jobs, calls `JobFace.handle` for each, and sends what comes back. Jobs are taken
while the model still loads, and wait for it: a queue from which nobody takes looks like one that is not
served, and RunPod would start more workers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any  # a job is JSON of whoever sent it, and the package's own type for it

import orjson

from moorage_worker.arrival import Arrival
from moorage_worker.errors import BadInput, EngineFailed, ModelUnavailable, RequestError, cause_line
from moorage_worker.faces.answers import FIELDS, answer
from moorage_worker.faces.job_progress import JobProgress
from moorage_worker.faces.json_body import object_field
from moorage_worker.faces.media_results import MediaResults
from moorage_worker.faces.problems import problem_members
from moorage_worker.faces.runs import WatchedRun
from moorage_worker.json_types import Json, kind
from moorage_worker.pacing import Pace
from moorage_worker.pool import InferencePool
from moorage_worker.readiness import LoadedModel, Stage

log = logging.getLogger(__name__)

Job = Mapping[str, Any]
SendProgress = Callable[[Job, object], Awaitable[None]]
WARM_UP: Json = {"moorage": "warm_up"}
LOADING_SECONDS = 2.0  # between two words on how far the same stage of loading is


class JobFace:
    """Used from the event loop of the `runpod` package."""

    def __init__(
        self,
        model_id: str,
        arrival: Arrival,
        pool: InferencePool,
        media: MediaResults,
        send_progress: SendProgress,
    ) -> None:
        self._model_id = model_id
        self._arrival = arrival
        self._pool = pool
        self._media = media
        self._send_progress = send_progress
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def in_hand(self) -> int:
        """Jobs that were begun and whose results are not sent yet."""
        return len(self._tasks)

    async def settled(self) -> None:
        """Returns when the result of each job that was begun has been sent."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def handle(self, job: Job) -> dict[str, Any]:
        """The output of a job, or `{"error": …}` with the text of a problem document."""
        self._watch_task()
        try:
            async with JobProgress(partial(self._send_progress, job)) as progress:
                return await self._answer(job, progress)
        except RequestError as error:
            if isinstance(error, EngineFailed):
                log.error("job %s: %s", job["id"], error)  # noqa: TRY400 - told without a traceback
            return failed(error)
        except Exception as error:  # a bug: the log gets the traceback, the caller the kind
            log.exception("job %s failed", job["id"])
            return failed(RequestError(cause_line(error)))

    def _watch_task(self) -> None:
        # The package awaits the handler in the task that sends the result, too: with its end, it is sent.
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, job: Job, progress: JobProgress) -> dict[str, Any]:
        asked: Json = job.get("input")
        if asked == WARM_UP:
            return warmed_up(await self._model(progress))
        request = request_of(asked)
        loaded = await self._model(progress)
        run = WatchedRun(lambda done, what: progress.tell(running(done, what)))
        try:
            return await self._pool.run(partial(self._infer, loaded, request, run))
        except asyncio.CancelledError:
            run.cancel()
            raise

    def _infer(self, loaded: LoadedModel, request: Mapping[str, Json], run: WatchedRun) -> dict[str, Any]:
        # The package wants values, and the engine's arrays are none: so JSON and back, in this thread.
        found: dict[str, Any] = orjson.loads(answer(loaded, self._model_id, request, self._media, run))
        return found

    async def _model(self, progress: JobProgress) -> LoadedModel:
        """The model, once it is there; until then the job tells how far it is. Raises ModelUnavailable."""
        if self._arrival.loaded.done():
            return self._loaded()
        pace = Pace(LOADING_SECONDS)

        def tell(stage: Stage, percent: float | None) -> None:
            if pace.due(stage, time.monotonic()):
                progress.tell({"stage": stage.value, "percent": percent})

        arrived, loop = asyncio.Event(), asyncio.get_running_loop()
        self._arrival.loaded.add_done_callback(lambda _: loop.call_soon_threadsafe(arrived.set))
        with self._arrival.watched(tell):
            await arrived.wait()
        return self._loaded()

    def _loaded(self) -> LoadedModel:
        try:
            return self._arrival.loaded.result()
        except Exception as error:
            raise ModelUnavailable(f"the model cannot be loaded: {cause_line(error)}") from error


def request_of(asked: Json) -> dict[str, Json]:
    """`{"inputs", "parameters"}` of a job's input. `{"prompt": …}` is short for inputs, and what stands
    beside it for parameters. Raises BadInput."""
    if not isinstance(asked, dict):
        raise BadInput("input", "type", f"must be an object, got {kind(asked)}")
    if "prompt" not in asked or "inputs" in asked:
        return asked
    beside = {name: value for name, value in asked.items() if name not in ("prompt", *FIELDS)}
    return {"inputs": asked["prompt"], "parameters": {**beside, **object_field(asked, "parameters")}}


def running(done: float, what: str) -> dict[str, Any]:
    """How far an inference is, in the form of how far a model is."""
    return {"stage": "running", "percent": round(100 * done, 1), "what": what}


def warmed_up(loaded: LoadedModel) -> dict[str, Any]:
    """The answer of a job that only asks for the model to be there."""
    return {
        "ready": True,
        "load_seconds": loaded.load_seconds,
        "from_cache": loaded.from_cache,
        "version": loaded.version,
    }


def failed(error: RequestError) -> dict[str, Any]:
    """What the package takes for the end of a job that failed."""
    return {"error": orjson.dumps(problem_members(error)).decode()}
