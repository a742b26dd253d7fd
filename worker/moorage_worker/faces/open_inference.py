"""The Open Inference Protocol v2 (KServe, Triton, MLServer): any client of those can call this worker."""

from __future__ import annotations

from aiohttp import web

from moorage_worker import __version__
from moorage_worker.errors import NoSuchModel
from moorage_worker.faces.context import CONTEXT, ServingContext
from moorage_worker.faces.json_body import json_response
from moorage_worker.faces.probes import describe

_NAME = "moorage-worker"


async def server_metadata(_request: web.Request) -> web.Response:
    return json_response({"name": _NAME, "version": __version__, "extensions": []})


async def live(_request: web.Request) -> web.Response:
    return json_response({"live": True})


async def server_ready(request: web.Request) -> web.Response:
    is_ready = request.app[CONTEXT].readiness.model is not None
    return json_response({"ready": is_ready}, 200 if is_ready else 503)


async def model_ready(request: web.Request) -> web.Response:
    context = _named_model(request)
    is_ready = context.readiness.model is not None
    return json_response({"name": context.model_id, "ready": is_ready}, 200 if is_ready else 503)


async def model_metadata(request: web.Request) -> web.Response:
    context = _named_model(request)
    loaded = context.readiness.require()
    return json_response(
        {
            "name": context.model_id,
            "versions": [loaded.version],
            "platform": f"{loaded.engine_name}_{loaded.engine.task}",
            "inputs": describe(loaded.engine.signature.inputs),
            "outputs": describe(loaded.engine.signature.outputs),
        }
    )


async def model_infer(request: web.Request) -> web.Response:
    """Run named tensors. Wrong names, shapes, datatypes: 400 with `error`."""
    context = _named_model(request)
    loaded = context.readiness.require()
    raw = await request.read()
    # Imported when first used: it brings numpy, which the server does without until a model is loaded.
    from moorage_worker.faces.tensor_inference import answer

    body = await context.pool.run(lambda: answer(loaded, context.model_id, raw))
    return web.Response(body=body, content_type="application/json")


def _named_model(request: web.Request) -> ServingContext:
    context = request.app[CONTEXT]
    name = request.match_info["name"]
    if name != context.model_id:
        raise NoSuchModel(f"this worker serves model {context.model_id!r}, not {name!r}")
    return context
