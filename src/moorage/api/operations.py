"""What operators and their machines ask: is it alive, can it do its work now?

An orchestrator restarts what is not alive, and sends no requests to what is not ready. A service whose store
is away is alive: a restart would not bring the store back.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from moorage import __version__
from moorage.api.json import as_json
from moorage.api.problems import response, responses
from moorage.errors import Unavailable
from moorage.services.readiness import Readiness

router = APIRouter(tags=["operations"])

RETRY_SECONDS = 2.0


class Health(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok", "version": __version__}]})
    status: str
    version: str


class Ready(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ready", "checks": {"store": "ok", "engine": "ok"}}]}
    )
    status: str
    checks: dict[str, str]


class NotReady(Unavailable):
    code, title = "not_ready", "Not ready"


@router.get("/health", response_model=Health, summary="Is the service alive?")
async def alive(_: Request) -> Response:
    """Needs no token, and asks nobody."""
    return as_json({"status": "ok", "version": __version__})


@router.get(
    "/ready", response_model=Ready, summary="Can it do its work now?", responses={503: responses(503)[503]}
)
async def ready(request: Request) -> Response:
    """Needs no token. 503 when the store does not answer or the engine stands still; then `checks` says of
    each what is wrong with it."""
    readiness: Readiness = request.app.state.readiness
    checks = await readiness.checks()
    told = {check.name: check.trouble or "ok" for check in checks}
    wrong = [f"{check.name}: {check.trouble}" for check in checks if check.trouble is not None]
    if not wrong:
        return as_json({"status": "ready", "checks": told})
    problem = NotReady(" ".join(wrong), advice="The service goes on by itself.", retry_after=RETRY_SECONDS)
    return response(problem, checks=told)
