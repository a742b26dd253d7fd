"""The route table: every path of the worker on one screen."""

from __future__ import annotations

from aiohttp import web

from moorage_worker.faces import open_inference, probes, task_inference
from moorage_worker.faces.context import CONTEXT, ServingContext
from moorage_worker.faces.problems import errors_as_answers

MAX_BODY_BYTES = 32 * 1024 * 1024


def build_health_app(context: ServingContext, path: str) -> web.Application:
    """For a balancer that asks on a port of its own."""
    app = web.Application()
    app[CONTEXT] = context
    app.add_routes([web.get(path, probes.ping)])
    return app


def build_probe_app(context: ServingContext, ping_path: str) -> web.Application:
    """For a worker whose requests come another way."""
    app = web.Application(middlewares=[errors_as_answers])
    app[CONTEXT] = context
    app.add_routes(
        [
            web.get(ping_path, probes.ping),
            web.get("/health", probes.health),
            web.get("/ready", probes.ready),
            web.get("/metadata", probes.metadata),
        ]
    )
    return app


def build_app(context: ServingContext, ping_path: str = "/ping") -> web.Application:
    """The worker's HTTP application. A model name may hold slashes, as repository ids do.

    A balancer's probe comes first: whatever path it was given, its codes are the probe's.
    """
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[errors_as_answers])
    app[CONTEXT] = context
    app.add_routes(
        [
            web.get(ping_path, probes.ping),
            web.post("/infer", task_inference.infer),
            web.get("/health", probes.health),
            web.get("/ready", probes.ready),
            web.get("/metadata", probes.metadata),
            web.get("/v2", open_inference.server_metadata),
            web.get("/v2/health/live", open_inference.live),
            web.get("/v2/health/ready", open_inference.server_ready),
            web.get("/v2/models/{name:.+}/ready", open_inference.model_ready),
            web.post("/v2/models/{name:.+}/infer", open_inference.model_infer),
            web.get("/v2/models/{name:.+}", open_inference.model_metadata),
        ]
    )
    return app
