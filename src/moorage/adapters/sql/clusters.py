"""Reads of clusters, their node groups and model versions: what organizations bring along.

All of them take the organization and have it in the statement, so that a foreign id finds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select

from moorage.adapters.sql import tables
from moorage.adapters.sql.kinds import CLUSTER, MODEL_VERSION, NODE_GROUP
from moorage.adapters.sql.reads import page
from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.model_version import ModelVersion
from moorage.ports.store import Page


def cluster(connection: Connection, cluster_id: str, organization_id: str) -> Cluster | None:
    parameters = {"id": cluster_id, "organization_id": organization_id}
    body = connection.execute(_CLUSTER, parameters).scalar()
    return None if body is None else CLUSTER.codec.load(body)


def clusters(connection: Connection, organization_id: str) -> Sequence[Cluster]:
    bodies = connection.execute(_CLUSTERS, {"organization_id": organization_id}).scalars()
    return [CLUSTER.codec.load(body) for body in bodies]


def node_groups(connection: Connection, organization_id: str, cluster_id: str | None) -> Sequence[NodeGroup]:
    parameters = {"organization_id": organization_id}
    statement = _NODE_GROUPS
    if cluster_id is not None:
        statement, parameters = _NODE_GROUPS_OF_CLUSTER, parameters | {"cluster_id": cluster_id}
    return [NODE_GROUP.codec.load(body) for body in connection.execute(statement, parameters).scalars()]


def node_group(connection: Connection, group_id: str, organization_id: str) -> NodeGroup | None:
    parameters = {"id": group_id, "organization_id": organization_id}
    body = connection.execute(_NODE_GROUP, parameters).scalar()
    return None if body is None else NODE_GROUP.codec.load(body)


def model_version(connection: Connection, model_id: str, organization_id: str) -> ModelVersion | None:
    parameters = {"id": model_id, "organization_id": organization_id}
    body = connection.execute(_MODEL_VERSION, parameters).scalar()
    return None if body is None else MODEL_VERSION.codec.load(body)


def model_versions(
    connection: Connection, organization_id: str, cursor: str | None, limit: int
) -> Page[ModelVersion]:
    columns = tables.model_versions.c
    conditions = [columns.organization_id == organization_id, columns.held_name.is_not(None)]
    return page(connection, MODEL_VERSION, conditions, cursor, limit)


_C = tables.clusters.c
_CLUSTER = select(_C.body).where(_C.id == bindparam("id"), _C.organization_id == bindparam("organization_id"))
_CLUSTERS = (
    select(_C.body)
    .where(_C.organization_id == bindparam("organization_id"), _C.held_name.is_not(None))
    .order_by(_C.created_at, _C.id)
)

_G = tables.node_groups.c
_NODE_GROUP = select(_G.body).where(
    _G.id == bindparam("id"), _G.organization_id == bindparam("organization_id")
)
_NODE_GROUPS = (
    select(_G.body)
    .where(_G.organization_id == bindparam("organization_id"), _G.removed_at.is_(None))
    .order_by(_G.created_at, _G.id)
)
_NODE_GROUPS_OF_CLUSTER = _NODE_GROUPS.where(_G.cluster_id == bindparam("cluster_id"))

_M = tables.model_versions.c
_MODEL_VERSION = select(_M.body).where(
    _M.id == bindparam("id"), _M.organization_id == bindparam("organization_id")
)
