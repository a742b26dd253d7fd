"""What a route needs of the running service: the services, and who is calling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from moorage.domain.identity import Principal
from moorage.services.authentication import Authenticator
from moorage.services.changes import DeploymentChanges
from moorage.services.clusters import ImportedClusters
from moorage.services.credentials import ProviderCredentials
from moorage.services.deployments import Deployments
from moorage.services.idempotency import Idempotency, fingerprint
from moorage.services.identity import Identity
from moorage.services.jobs import Jobs
from moorage.services.keys import ApiKeys
from moorage.services.models import Models
from moorage.services.new_deployments import NewDeployments
from moorage.services.node_groups import NodeGroups
from moorage.services.prices import Prices
from moorage.services.webhooks import Webhooks
from moorage.services.worker_reports import WorkerReports


@dataclass(frozen=True, slots=True)
class Services:
    new_deployments: NewDeployments
    deployments: Deployments
    changes: DeploymentChanges
    identity: Identity
    keys: ApiKeys
    authenticator: Authenticator
    webhooks: Webhooks
    idempotency: Idempotency
    credentials: ProviderCredentials
    clusters: ImportedClusters
    node_groups: NodeGroups
    models: Models
    prices: Prices
    worker_reports: WorkerReports
    jobs: Jobs


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


class _Bearer(SecurityBase):
    """Any of the bearer tokens that Moorage knows. A token seen lately costs no suspension."""

    def __init__(self) -> None:
        self.model = HTTPBearerModel(
            description="An API key (`mrg_…`), a token from `/auth/token`, or a provider's own API key."
        )
        self.scheme_name = "bearer"

    async def __call__(self, request: Request) -> Principal:
        header = request.headers.get("authorization")
        authenticator = services(request).authenticator
        cached = authenticator.cached(header) if header is not None else None
        principal = cached or await authenticator.authenticate_header(header)
        return principal if header is None else authenticator.with_account(principal, header)


Caller = Annotated[Principal, Depends(_Bearer())]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Repeating a request with the same key repeats its answer, and does nothing again.",
        examples=["3f1c9c6e-deploy-digits"],
        json_schema_extra={"pattern": "^[\\x21-\\x7e]{1,255}$"},
    ),
]


async def same_request(request: Request, caller: Principal) -> str:
    """What makes two requests the same one: the caller, method, path and body."""
    return fingerprint(caller.id, request.method, request.url.path, await request.body())
