"""A cluster and its node groups as HTTP surfaces show them: ids as UUIDs, memory in GiB, no secret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from moorage.domain.cluster import Cluster, ClusterReport, NodeGroup, NodeShape
from moorage.domain.compute import GIB
from moorage.domain.naming import uuid_of
from moorage.domain.view import instant


class ShapeView(TypedDict):
    cpus: float
    memory_gib: float
    gpu: str | None
    gpus: int
    gpu_memory_gib: float | None


class NodeGroupView(TypedDict):
    uuid: str
    cluster: str
    name: str
    selector: dict[str, str]
    discovered: bool
    nodes: int | None
    max_nodes: int | None
    instance_type: str | None
    region: str | None
    spot: bool
    shape: ShapeView | None
    price_per_hour: float | None
    price_source: str | None
    price_as_of: str | None
    created_at: str


class PermissionView(TypedDict):
    verb: str
    resource: str
    allowed: bool
    needed_for: str


class StorageClassView(TypedDict):
    name: str
    provisioner: str
    default: bool
    access_modes: list[str]


class ToolView(TypedDict):
    name: str
    installed: bool
    version: str | None
    address: str | None
    detail: str | None


class GpuNodeView(TypedDict):
    node: str
    product: str
    memory_gib: float | None
    count: int
    free: int


class ReportView(TypedDict):
    checked_at: str
    reachable: bool
    problem: str | None
    version: str | None
    permissions: list[PermissionView]
    storage_classes: list[StorageClassView]
    tools: list[ToolView]
    gateway_classes: list[str]
    gpu_nodes: list[GpuNodeView]
    warnings: list[str]


class ClusterView(TypedDict):
    uuid: str
    name: str
    provider: str
    server: str
    created_at: str
    created_by: str
    report: ReportView | None
    nodegroups: list[NodeGroupView]


def cluster_view(cluster: Cluster, groups: Sequence[NodeGroup]) -> ClusterView:
    """`groups` are those of this cluster."""
    return {
        "uuid": str(uuid_of(cluster.id)),
        "name": cluster.name,
        "provider": cluster.provider,
        "server": cluster.server,
        "created_at": instant(cluster.created_at),
        "created_by": cluster.created_by,
        "report": None if cluster.report is None else _report(cluster.report),
        "nodegroups": [node_group_view(group, cluster) for group in groups],
    }


def node_group_view(group: NodeGroup, cluster: Cluster) -> NodeGroupView:
    """`nodes` is what the last check counted; null where it did not look for this group."""
    found = () if cluster.report is None else cluster.report.node_groups
    return {
        "uuid": str(uuid_of(group.id)),
        "cluster": str(uuid_of(group.cluster_id)),
        "name": group.name,
        "selector": dict(group.selector),
        "discovered": group.discovered,
        "nodes": next((f.nodes for f in found if dict(f.selector) == dict(group.selector)), None),
        "max_nodes": group.max_nodes,
        "instance_type": group.instance_type,
        "region": group.region,
        "spot": group.spot,
        "shape": None if group.shape is None else _shape(group.shape),
        "price_per_hour": group.price_per_hour,
        "price_source": group.price_source,
        "price_as_of": group.price_as_of,
        "created_at": instant(group.created_at),
    }


def _shape(shape: NodeShape) -> ShapeView:
    return {
        "cpus": shape.cpus,
        "memory_gib": _gib(shape.memory_bytes),
        "gpu": shape.gpu,
        "gpus": shape.gpus,
        "gpu_memory_gib": None if shape.gpu_memory_bytes is None else _gib(shape.gpu_memory_bytes),
    }


def _report(report: ClusterReport) -> ReportView:
    return {
        "checked_at": instant(report.checked_at),
        "reachable": report.reachable,
        "problem": report.problem,
        "version": report.version,
        "permissions": [
            {"verb": g.verb, "resource": g.resource, "allowed": g.allowed, "needed_for": g.needed_for}
            for g in report.grants
        ],
        "storage_classes": [
            {
                "name": s.name,
                "provisioner": s.provisioner,
                "default": s.default,
                "access_modes": [mode.value for mode in s.access_modes],
            }
            for s in report.storage_classes
        ],
        "tools": [
            {
                "name": t.name,
                "installed": t.present,
                "version": t.version,
                "address": t.address,
                "detail": t.detail,
            }
            for t in report.tools
        ],
        "gateway_classes": list(report.gateway_classes),
        "gpu_nodes": [
            {
                "node": n.name,
                "product": n.product,
                "memory_gib": None if n.memory_bytes is None else _gib(n.memory_bytes),
                "count": n.count,
                "free": n.free,
            }
            for n in report.gpu_nodes
        ],
        "warnings": list(report.warnings),
    }


def _gib(count: int) -> float:
    return round(count / GIB, 2)
