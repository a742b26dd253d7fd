"""The FastAPI application: the surfaces put together, and nothing else."""

from __future__ import annotations

import inspect
from typing import Any  # an OpenAPI document is untyped JSON

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from moorage import __version__
from moorage.api import (
    byoc,
    byoc_errors,
    byoc_schemas,
    cluster_schemas,
    clusters,
    credentials,
    deployment_requests,
    deployments,
    identity,
    infer,
    jobs,
    market,
    model_schemas,
    models,
    operations,
    problems,
    schemas,
    webhooks,
    workers,
)
from moorage.api.context import Services
from moorage.api.limits import BodyLimit
from moorage.api.paths import TrailingSlash
from moorage.api.query import known_query
from moorage.api.requests import RouteNamed
from moorage.services.readiness import Readiness

_ABOUT = """Deploys a model to the cheapest compute it fits on, waits until it answers, and looks after it.

Errors are RFC 9457 problem documents: `code` is stable, `errors` names each field and the rule it broke.
`Idempotency-Key` works on every POST that changes something. Lists page by `cursor`."""

_DOCUMENTED = (
    schemas,
    deployment_requests,
    byoc_schemas,
    cluster_schemas,
    model_schemas,
    webhooks,
    identity,
    infer,
    problems,
    credentials,
    workers,
    jobs,
    operations,
)  # the modules whose models have examples


def create_app(
    services: Services,
    readiness: Readiness,
    *,
    max_body_bytes: int,
) -> FastAPI:
    app = FastAPI(
        title="Moorage", version=__version__, description=_ABOUT, redoc_url=None, redirect_slashes=False
    )
    app.state.services = services
    app.state.readiness = readiness
    guarded = (
        deployments.router,
        byoc.router,
        clusters.router,
        models.router,
        market.router,
        credentials.router,
        webhooks.router,
        identity.router,
        jobs.router,
    )
    for router in guarded:
        app.include_router(router, dependencies=[Depends(known_query)])
    for router in (infer.router, workers.router, identity.sign_in, operations.router):
        app.include_router(router)
    dialects = {byoc.PREFIX: byoc_errors.answer}
    problems.install(app, dialects)
    app.add_middleware(RouteNamed)
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes, larger=jobs.body_limit, dialects=dialects)
    app.add_middleware(TrailingSlash, prefixes=(byoc.PREFIX, clusters.PREFIX), bare=(models.PREFIX,))
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        parts = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (problems.ProblemDocument, infer.InferRequest):  # named by hand, not by a signature
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            parts |= schema.pop("$defs", {}) | {model.__name__: schema}
        for path, methods in document["paths"].items():
            for operation in methods.values() if path.startswith(byoc.PREFIX) else ():
                operation["responses"].pop("422", None)  # it answers 400, as its document says
        for unused in ("HTTPValidationError", "ValidationError"):
            parts.pop(unused, None)
        _restore_nulls(parts)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
    return app


def _restore_nulls(parts: dict[str, Any]) -> None:
    """FastAPI drops every null of the document, those inside examples too, which then break their schema."""
    for module in _DOCUMENTED:
        for name, model in inspect.getmembers(module, inspect.isclass):
            if issubclass(model, BaseModel) and name in parts:
                extra = model.model_config.get("json_schema_extra")
                if isinstance(extra, dict):
                    parts[name] |= extra
