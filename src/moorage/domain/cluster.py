"""Clusters that organizations bring along, and the groups of nodes in them.

A cluster is an account at a provider: what opens it is a stored credential, and this row is what its owner
sees of it. A report is what one check found, kept as it was so that a later question needs no cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from moorage.domain.workload import AccessMode


@dataclass(frozen=True, slots=True)
class Grant:
    """Whether our account may do `verb` on `resource` (with its group: `deployments.apps`)."""

    verb: str
    resource: str
    allowed: bool
    needed_for: str  # in words; what does not work without it


@dataclass(frozen=True, slots=True)
class StorageClass:
    """`access_modes` are those its provisioner is known to do; empty: not known."""

    name: str
    provisioner: str
    default: bool = False
    access_modes: tuple[AccessMode, ...] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that may be installed: `metrics-server`, `keda`, `gateway-api`, `envoy-gateway`,
    `prometheus`, `rabbitmq`, `redis`. `address` is its URL within the cluster, where it has one."""

    name: str
    present: bool
    version: str | None = None
    address: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class GpuNode:
    name: str
    product: str
    memory_bytes: int | None  # of one accelerator
    count: int
    free: int


@dataclass(frozen=True, slots=True)
class NodeShape:
    """One node, or one accelerator of it (`gpu_memory_bytes`)."""

    cpus: float
    memory_bytes: int
    gpu: str | None = None
    gpus: int = 0
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class FoundGroup:
    """A node group that the clouds' labels tell of."""

    name: str
    selector: Mapping[str, str]
    nodes: int
    shape: NodeShape | None = None
    instance_type: str | None = None
    region: str | None = None
    spot: bool = False


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """`problem` says why the cluster could not be read at all; the rest is then empty."""

    checked_at: datetime
    problem: str | None = None
    version: str | None = None
    grants: tuple[Grant, ...] = ()
    storage_classes: tuple[StorageClass, ...] = ()
    tools: tuple[Tool, ...] = ()
    gateway_classes: tuple[str, ...] = ()
    gpu_nodes: tuple[GpuNode, ...] = ()
    node_groups: tuple[FoundGroup, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def reachable(self) -> bool:
        return self.problem is None

    def tool(self, name: str) -> Tool:
        return next((t for t in self.tools if t.name == name), Tool(name, present=False))


@dataclass(frozen=True, slots=True)
class Cluster:
    """`credential_id` is the stored account of `provider` that opens it; `report` the last check."""

    id: str
    organization_id: str
    name: str
    provider: str
    credential_id: str
    server: str
    created_at: datetime
    created_by: str
    report: ClusterReport | None = None
    removed_at: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """Nodes that `selector` finds by their labels. A group that was `discovered` follows the cluster's
    checks, another one was declared by its owner. `price_per_hour` is USD for one node, with its source;
    None: not known. `shape` says what a node has when there is none to look at, up to `max_nodes` (groups
    that an autoscaler makes bigger).
    """

    id: str
    organization_id: str
    cluster_id: str
    name: str
    selector: Mapping[str, str]
    discovered: bool
    created_at: datetime
    price_per_hour: float | None = None
    price_source: str | None = None
    price_as_of: str | None = None  # ISO date
    instance_type: str | None = None
    region: str | None = None
    spot: bool = False
    shape: NodeShape | None = None
    max_nodes: int | None = None
    removed_at: datetime | None = None
    version: int = 0
