"""`/health`, `/ready` and `/metadata`: what supervisors and balancers ask."""

from __future__ import annotations

from aiohttp import web

from moorage_worker.engines.base import TensorSpec
from moorage_worker.faces.context import CONTEXT
from moorage_worker.faces.json_body import json_response

_ALIVE = b'{"status":"ok"}'


async def health(_request: web.Request) -> web.Response:
    """200 as long as the process lives, whatever the model does."""
    return web.Response(body=_ALIVE, content_type="application/json")


async def ready(request: web.Request) -> web.Response:
    """200 once the model has answered an inference, else 503 with the stage."""
    readiness = request.app[CONTEXT].readiness
    if readiness.model is None:
        body = {"status": "loading", "stage": readiness.stage.value}
        return json_response(body, 503, headers={"Retry-After": "1"})
    return json_response({"status": "ready", "load_seconds": readiness.model.load_seconds})


async def ping(request: web.Request) -> web.Response:
    """For load balancers: 200 ready, 204 still on its way."""
    return web.Response(status=204 if request.app[CONTEXT].readiness.model is None else 200)


async def metadata(request: web.Request) -> web.Response:
    """Which model, by which engine, for which task, with which tensors. 503 until it is loaded."""
    context = request.app[CONTEXT]
    loaded = context.readiness.require()
    signature = loaded.engine.signature
    return json_response(
        {
            "model_id": context.model_id,
            "model": context.model,
            "revision": loaded.version,
            "engine": loaded.engine_name,
            "task": loaded.engine.task,
            "inputs": describe(signature.inputs),
            "outputs": describe(signature.outputs),
        }
    )


def describe(specs: tuple[TensorSpec, ...]) -> list[dict[str, object]]:
    """Tensors as the Open Inference Protocol writes them."""
    return [{"name": spec.name, "datatype": spec.datatype, "shape": spec.shape} for spec in specs]
