"""Reads: one document by its id, or a search. What serves a user takes the organization, and stays in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from moorage.adapters.firestore import queries
from moorage.adapters.firestore.bodies import Bodies
from moorage.adapters.firestore.database import Database
from moorage.adapters.firestore.documents import Found, document_id, name_place, place_of, value_of
from moorage.adapters.firestore.kinds import (
    API_KEY,
    CLUSTER,
    DELIVERY,
    DEPLOYMENT,
    EVENT_CODEC,
    MODEL_VERSION,
    NODE_GROUP,
    PROVIDER_CREDENTIAL,
    USER,
    Kind,
    deployment_name,
)
from moorage.adapters.firestore.queries import Search, Shape
from moorage.adapters.paging import Position, decode_cursor, encode_cursor
from moorage.adapters.row_codec import to_micros
from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.delivery import Delivery
from moorage.domain.deployment import Deployment
from moorage.domain.event import Event
from moorage.domain.identity import ApiKey, ProviderCredential, User
from moorage.domain.job import Job
from moorage.domain.model_version import ModelVersion
from moorage.ports.store import DeliveryFilter, DeploymentFilter, Page, Row, is_routed

R = TypeVar("R", bound=Row)
O = TypeVar("O", ApiKey, Cluster, Delivery, Deployment, Job, ModelVersion, NodeGroup)  # noqa: E741
P = TypeVar("P", Delivery, Deployment, ModelVersion)


class Reads:
    def __init__(self, database: Database, bodies: Bodies) -> None:
        self._database = database
        self._bodies = bodies

    async def row(self, kind: Kind[R], id_: str) -> R | None:
        place = place_of(kind, id_)
        found = (await self._database.get([place])).get(place)
        return None if found is None else (await self._values(kind, [found]))[0]

    async def row_of(self, kind: Kind[O], id_: str, organization_id: str | None) -> O | None:
        """None too when it is another organization's than the one given."""
        found = await self.row(kind, id_)
        return found if found is not None and organization_id in (None, found.organization_id) else None

    async def deployments(
        self, organization_id: str, where: DeploymentFilter, cursor: str | None, limit: int
    ) -> Page[Deployment]:
        chosen = {"provider": where.provider, "model": where.model, "name": where.name}
        values: dict[str, object] = {name: value for name, value in chosen.items() if value is not None}
        if where.phases:
            values["phase"] = sorted(phase.value for phase in where.phases)
        shape = queries.DEPLOYMENTS[frozenset(values)]
        return await self._page(DEPLOYMENT, shape, organization_id, values, cursor, limit)

    async def deliveries(
        self, organization_id: str, where: DeliveryFilter, cursor: str | None, limit: int
    ) -> Page[Delivery]:
        chosen = {"state": where.state, "subject_id": where.subject_id}
        values: dict[str, object] = {name: value for name, value in chosen.items() if value is not None}
        shape = queries.DELIVERIES[frozenset(values)]
        return await self._page(DELIVERY, shape, organization_id, values, cursor, limit)

    async def model_versions(
        self, organization_id: str, cursor: str | None, limit: int
    ) -> Page[ModelVersion]:
        shape = queries.MODEL_VERSIONS
        return await self._page(MODEL_VERSION, shape, organization_id, {"there": True}, cursor, limit)

    async def deployment_named(self, organization_id: str, name: str) -> Deployment | None:
        key = name_place(deployment_name(organization_id, name)).key
        return await self._one(DEPLOYMENT, queries.DEPLOYMENT_NAMED.search(unique=key, limit=1))

    async def serving(self, ids: Sequence[str] | None) -> Sequence[Deployment]:
        if ids is None:
            found = await self._rows(DEPLOYMENT, queries.SERVING.search(serving=True))
        else:
            documents = await self._database.get([place_of(DEPLOYMENT, id_) for id_ in ids])
            there = await self._values(DEPLOYMENT, list(documents.values()))
            found = [row for row in there if is_routed(row)]
        return sorted(found, key=lambda row: row.id)

    async def serving_versions(self) -> Mapping[str, int]:
        found = await self._database.find(queries.SERVING_VERSIONS.search(serving=True))
        return {row.fields["id"]: row.fields["version"] for row in found}

    async def events(self, subject_id: str, after: str | None, limit: int) -> Sequence[Event]:
        search = queries.EVENTS_OF.search(subject_id=subject_id, id=after or "", limit=limit)
        bodies = await self._bodies.of(await self._database.find(search))
        return [EVENT_CODEC.load(body) for body in bodies]

    async def user_named(self, username: str) -> User | None:
        return await self._one(USER, queries.USER_NAMED.search(username=username, limit=1))

    async def api_key_by_hash(self, hash_: str) -> ApiKey | None:
        return await self._one(API_KEY, queries.API_KEY_BY_HASH.search(hash=hash_, limit=1))

    async def api_keys(self, organization_id: str) -> Sequence[ApiKey]:
        found = await self._rows(API_KEY, queries.API_KEYS.search(organization_id=organization_id))
        return sorted(found, key=lambda row: (row.created_at, row.id))

    async def provider_credentials(
        self, organization_id: str | None, provider: str | None
    ) -> Sequence[ProviderCredential]:
        chosen = {"organization_id": organization_id, "provider": provider}
        values = {name: value for name, value in chosen.items() if value is not None}
        search = queries.CREDENTIALS[frozenset(values)].search(values)
        found = await self._rows(PROVIDER_CREDENTIAL, search)
        return sorted(found, key=lambda row: (row.created_at, row.id))

    async def clusters(self, organization_id: str) -> Sequence[Cluster]:
        search = queries.CLUSTERS.search(organization_id=organization_id, there=True)
        found = await self._rows(CLUSTER, search)
        return sorted(found, key=lambda row: (row.created_at, row.id))

    async def node_groups(self, organization_id: str, cluster_id: str | None) -> Sequence[NodeGroup]:
        if cluster_id is None:
            search = queries.NODE_GROUPS.search(organization_id=organization_id, there=True)
        else:
            search = queries.NODE_GROUPS_OF.search(
                organization_id=organization_id, cluster_id=cluster_id, there=True
            )
        found = await self._rows(NODE_GROUP, search)
        return sorted(found, key=lambda row: (row.created_at, row.id))

    async def _one(self, kind: Kind[R], search: Search) -> R | None:
        found = await self._rows(kind, search)
        return found[0] if found else None

    async def _rows(self, kind: Kind[R], search: Search) -> Sequence[R]:
        return await self._values(kind, await self._database.find(search))

    async def _values(self, kind: Kind[R], found: Sequence[Found]) -> Sequence[R]:
        bodies = await self._bodies.of(found)
        return [value_of(kind, row, body) for row, body in zip(found, bodies, strict=True)]

    async def _page(
        self,
        kind: Kind[P],
        shape: Shape,
        organization_id: str,
        values: dict[str, object],
        cursor: str | None,
        limit: int,
    ) -> Page[P]:
        """Newest first. One row more than asked for is read, to know whether another page follows."""
        after = None
        if cursor is not None:
            last = decode_cursor(cursor)
            after = {"created_at": last.created_at, "__name__": document_id(last.id)}
        search = shape.search(values, organization_id=organization_id, limit=limit + 1, after=after)
        rows = await self._rows(kind, search)
        items = tuple(rows[:limit])
        if len(rows) <= limit or not items:
            return Page(items, None)
        return Page(items, encode_cursor(Position(to_micros(items[-1].created_at), items[-1].id)))
