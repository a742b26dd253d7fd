"""A service with a cluster to deploy on: imported, with node groups, and models that may be deployed there.

The cluster is in memory. What the surface makes of a request does not depend on whose cluster it is; that a
real one gets what it should is shown by the tests of its provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any  # JSON of the API
from uuid import UUID

from moorage.adapters.secrets import KeyRing
from moorage.api.byoc_schemas import CREATE
from moorage.credentials import seal_values
from moorage.domain.cluster import Cluster, ClusterReport, NodeGroup
from moorage.domain.deployment import Deployment
from moorage.domain.identity import ProviderCredential
from moorage.domain.model import ContainerImage, HubModel
from moorage.domain.model_version import ImportState, ModelKind, ModelVersion
from moorage.domain.naming import id_of, uuid_of
from moorage.ports.provider import Credentials
from moorage.ports.store import Insert, Row
from moorage.testing.provider import InProcessCompute, InProcessSleeper, cpu_offer

from .conftest import MODEL, Api

ROOT = "/deployments/model-deployments/"
SERVER = "https://127.0.0.1:9"
Body = dict[str, Any]


class InProcessClusters(InProcessSleeper):
    """An `InProcessSleeper` with `Clusters`: every account is a cluster."""

    def __init__(self, compute: InProcessCompute) -> None:
        super().__init__(compute)
        self.credential_fields = {"token": "a token of the cluster"}

    def read_access(self, given: Mapping[str, str]) -> Mapping[str, str]:
        return {"server": given.get("server", SERVER), "token": given.get("token", "t")}

    async def check(self, credentials: Credentials) -> ClusterReport:
        return ClusterReport(datetime.now(UTC), version="v1.36.0")


def clusters() -> InProcessClusters:
    return InProcessClusters(InProcessCompute([cpu_offer("pool", provider="cubes")], name="cubes"))


@dataclass(frozen=True)
class World:
    """What one organization brought along. Ids are the rows'; the surface speaks of their UUIDs."""

    organization_id: str
    cluster: Cluster
    groups: Sequence[NodeGroup]
    container: ModelVersion
    custom: ModelVersion
    failed: ModelVersion

    def body(self, **changes: Any) -> dict[str, Any]:
        """The document's create call with ids that are there; a change to None leaves a field out."""
        ours = {
            "model_repo": str(uuid_of(self.container.id)),
            "cluster": str(uuid_of(self.cluster.id)),
            "nodegroups": [str(uuid_of(self.groups[0].id))],
        }
        return {name: value for name, value in {**CREATE, **ours, **changes}.items() if value is not None}

    def custom_body(self, **changes: Any) -> dict[str, Any]:
        return self.body(
            **{"model_repo": str(uuid_of(self.custom.id)), "ports": None, "healthcheck": None, **changes}
        )


async def bring(api: Api, organization_id: str, name: str = "ours") -> World:
    """A cluster with two node groups, a container, a custom model, and one whose import failed."""
    service = api.service
    ids, now = service.new_id, service.clock.now()
    box = KeyRing.load_or_create(service.settings.data_dir / "secret_keys")
    credential_id = ids("crd")
    credential = ProviderCredential(
        credential_id,
        organization_id,
        "cubes",
        name,
        seal_values(box, credential_id, {"server": SERVER, "token": "t"}),
        "t…",
        now,
        "usr",
    )
    cluster = Cluster(ids("cls"), organization_id, name, "cubes", credential_id, SERVER, now, "usr")
    groups = tuple(
        NodeGroup(ids("ngp"), organization_id, cluster.id, f"pool-{n}", {"pool": str(n)}, False, now)
        for n in range(2)
    )
    container = ModelVersion(
        ids("mdl"),
        organization_id,
        f"{name}-container",
        "1",
        ModelKind.IMPORTED_CONTAINER,
        ContainerImage("acme/serve:1"),
        ImportState.SUCCESS,
        now,
        "usr",
    )
    custom = replace(
        container,
        id=ids("mdl"),
        name=f"{name}-model",
        kind=ModelKind.CUSTOM_MODEL,
        source=HubModel(MODEL),
    )
    failed = replace(
        container, id=ids("mdl"), name=f"{name}-failed", state=ImportState.FAILED, detail="no such image"
    )
    rows: list[Row] = [credential, cluster, *groups, container, custom, failed]
    await service.store.commit([Insert(row) for row in rows])
    return World(organization_id, cluster, groups, container, custom, failed)


@dataclass(frozen=True)
class Place:
    """A running service with the owner's world in it."""

    api: Api
    world: World
    provider: InProcessClusters

    async def create(self, body: Body | None = None, **changes: Any) -> Body:
        answer = await self.api.owner.post(ROOT, json=body or self.world.body(**changes))
        assert answer.status_code == 201, answer.text
        made: Body = answer.json()
        return made

    async def read(self, uuid: str) -> Body:
        answer = await self.api.owner.get(f"{ROOT}{uuid}/")
        assert answer.status_code == 200, answer.text
        found: Body = answer.json()
        return found

    async def until(self, uuid: str, *statuses: str) -> Body:
        return await self.when(uuid, lambda found: found["status"] in statuses)

    async def when(self, uuid: str, wanted: Callable[[Body], bool]) -> Body:
        async with asyncio.timeout(10):
            while True:
                found = await self.read(uuid)
                if wanted(found):
                    return found
                await asyncio.sleep(0.02)

    async def row(self, uuid: str) -> Deployment:
        found = await self.api.service.store.deployment(id_of("dep", UUID(uuid)))
        assert found is not None
        return found


async def owners_world(api: Api) -> World:
    owner = await api.service.store.user_named("owner")
    assert owner is not None
    return await bring(api, owner.organization_id)
