"""RunPod's job handler: the third face of the worker.

The `runpod` package owns the process: it takes jobs, calls `JobFace.handle` for each, and sends what comes
back. Jobs are taken while the model still loads, and wait for it, so that a queue shows that it is being
worked on.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any  # a job is JSON of whoever sent it

import orjson

from moorage_worker.errors import BadInput, LoadFailed, RequestError, cause_line
from moorage_worker.faces.answers import FIELDS, answer
from moorage_worker.faces.media_results import MediaResults
from moorage_worker.faces.problems import members
from moorage_worker.faces.runs import WatchedRun
from moorage_worker.json_types import Json, kind
from moorage_worker.pool import InferencePool
from moorage_worker.readiness import LoadedModel

log = logging.getLogger(__name__)

Job = Mapping[str, Any]
TellProgress = Callable[[Job, object], None]  # as `runpod.serverless.progress_update`
WARM_UP: Json = {"moorage": "warm_up"}


class JobFace:
    """`loaded` is the model, once it is there, or why it never will be."""

    def __init__(
        self,
        model_id: str,
        loaded: Future[LoadedModel],
        pool: InferencePool,
        media: MediaResults,
        tell_progress: TellProgress,
    ) -> None:
        self._model_id = model_id
        self._loaded = loaded
        self._pool = pool
        self._media = media
        self._tell_progress = tell_progress

    async def handle(self, job: Job) -> dict[str, Any]:
        """The output of a job, or `{"error": …}` with the text of a problem document."""
        try:
            return await self._answer(job)
        except RequestError as error:
            return {"error": json.dumps(members(error))}
        except LoadFailed as error:
            failure = RequestError(f"the model cannot be loaded: {error}")
            failure.status, failure.code, failure.title = 503, "load_failed", "Model cannot be loaded"
            return {"error": json.dumps(members(failure))}
        except Exception as error:  # a bug: the log gets the traceback, the caller the kind
            log.exception("job %s failed", job.get("id"))
            return {"error": json.dumps(members(RequestError(cause_line(error))))}

    async def _answer(self, job: Job) -> dict[str, Any]:
        asked = job.get("input")
        body = None if asked == WARM_UP else request_of(asked)
        # The job may be cancelled while it waits; the model goes on loading for the others.
        loaded = await asyncio.shield(asyncio.wrap_future(self._loaded))
        if body is None:
            return {
                "ready": True,
                "load_seconds": loaded.load_seconds,
                "from_cache": loaded.from_cache,
                "version": loaded.version,
            }
        request = body
        run = WatchedRun(lambda done, what: self._tell(job, done, what))
        try:
            raw = await self._pool.run(lambda: answer(loaded, self._model_id, request, self._media, run))
        except asyncio.CancelledError:
            run.cancel()
            raise
        found: dict[str, Any] = orjson.loads(raw)
        return found

    def _tell(self, job: Job, done: float, what: str) -> None:
        self._tell_progress(job, {"percent": round(done * 100, 1), "what": what})


def request_of(asked: Json) -> dict[str, Json]:
    """`{"inputs", "parameters"}` of a job's input; `{"prompt": …}` is short for inputs, the rest parameters.
    Raises BadInput."""
    if not isinstance(asked, dict):
        raise BadInput("input", "type", f"must be an object, got {kind(asked)}")
    if "prompt" not in asked or "inputs" in asked:
        return asked
    rest = {name: value for name, value in asked.items() if name not in ("prompt", *FIELDS)}
    parameters = asked.get("parameters")
    more = parameters if isinstance(parameters, dict) else {}
    return {"inputs": asked["prompt"], "parameters": {**rest, **more}}
