"""`POST /infer`: a request in the words of the task, not of its tensors."""

from __future__ import annotations

import time

from aiohttp import web

from moorage_worker.errors import BadInput, EngineFailed, RequestError, cause_line
from moorage_worker.faces.context import CONTEXT
from moorage_worker.faces.json_body import encode, object_field, parse_object, refuse_unknown
from moorage_worker.readiness import LoadedModel

_FIELDS = ("inputs", "parameters")


async def infer(request: web.Request) -> web.Response:
    """Answer `{"inputs", "parameters"}` with `{"model_id", "outputs", "metadata"}`."""
    context = request.app[CONTEXT]
    loaded = context.readiness.require()
    raw = await request.read()
    # Decoding and encoding are part of the job: megabytes of pixels must not hold up the event loop.
    answer = await context.pool.run(lambda: _answer(loaded, context.model_id, raw))
    return web.Response(body=answer, content_type="application/json")


def _answer(loaded: LoadedModel, model_id: str, raw: bytes) -> bytes:
    body = parse_object(raw)
    refuse_unknown(body, _FIELDS)
    if "inputs" not in body:
        raise BadInput("inputs", "required", "is missing")
    parameters = object_field(body, "parameters")
    started = time.perf_counter()
    try:
        outputs = loaded.engine.infer(body["inputs"], parameters)
    except RequestError:
        raise
    except Exception as error:  # whatever the runtime raises is its failure, told without a traceback
        raise EngineFailed(cause_line(error)) from error
    milliseconds = round((time.perf_counter() - started) * 1000, 3)
    metadata = {"inference_time_ms": milliseconds, "model_version": loaded.version}
    return encode({"model_id": model_id, "outputs": outputs, "metadata": metadata})
