"""The words of the clusters surface: what it takes and gives, for validation and for the document."""

from __future__ import annotations

from typing import Annotated, Any  # examples are untyped JSON

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from moorage.domain.cluster import NodeShape
from moorage.domain.compute import GIB
from moorage.domain.node_groups import NewNodeGroup

Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]

LARGEST_GIB = 2**20

CLUSTER_ID = "019aa5b5-7f60-7d0c-a4c1-0a1b2c3d4e5f"
GROUP_ID = "4b1f2a9e-0c53-4d5b-9a53-6f1f0f3f7c11"
NODE_GROUP: dict[str, Any] = {
    "uuid": GROUP_ID,
    "cluster": CLUSTER_ID,
    "name": "gpu-pool",
    "selector": {"eks.amazonaws.com/nodegroup": "gpu-pool"},
    "discovered": True,
    "nodes": 2,
    "max_nodes": None,
    "instance_type": "g6.xlarge",
    "region": "eu-central-1",
    "spot": False,
    "shape": {"cpus": 3.9, "memory_gib": 14.6, "gpu": "NVIDIA-L4", "gpus": 1, "gpu_memory_gib": 22.5},
    "price_per_hour": 0.8048,
    "price_source": "AWS price list",
    "price_as_of": "2026-11-09",
    "created_at": "2026-11-21T09:00:00.000000Z",
}
REPORT: dict[str, Any] = {
    "checked_at": "2026-11-21T09:00:00.000000Z",
    "reachable": True,
    "problem": None,
    "version": "v1.34.2",
    "permissions": [
        {
            "verb": "create",
            "resource": "deployments.apps",
            "allowed": True,
            "needed_for": "running anything",
        }
    ],
    "storage_classes": [
        {
            "name": "gp3",
            "provisioner": "ebs.csi.aws.com",
            "default": True,
            "access_modes": ["ReadWriteOnce", "ReadWriteOncePod"],
        }
    ],
    "tools": [
        {"name": "keda", "installed": True, "version": "2.18.1", "address": None, "detail": None},
        {"name": "rabbitmq", "installed": False, "version": None, "address": None, "detail": None},
    ],
    "gateway_classes": ["eg"],
    "gpu_nodes": [
        {"node": "ip-10-0-1-17", "product": "NVIDIA-L4", "memory_gib": 22.5, "count": 1, "free": 1}
    ],
    "warnings": [],
}
CLUSTER: dict[str, Any] = {
    "uuid": CLUSTER_ID,
    "name": "production",
    "provider": "kubernetes",
    "server": "https://k8s.example.com:6443",
    "created_at": "2026-11-21T09:00:00.000000Z",
    "created_by": "usr_27k4m6q2x5y3zj7abcdefghijk",
    "report": REPORT,
    "nodegroups": [NODE_GROUP],
}
_WITH_KUBECONFIG: dict[str, Any] = {"name": "production", "kubeconfig": "apiVersion: v1\nkind: Config\n…"}
_WITH_TOKEN: dict[str, Any] = {
    "name": "staging",
    "server": "https://k8s.example.com:6443",
    "certificate_authority": "-----BEGIN CERTIFICATE-----\n…",
    "token": "eyJ…",
    "namespace": "models",
}


class ClusterRequest(BaseModel):
    """Either `kubeconfig`, or `server`, `certificate_authority` and `token` of a service account."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [_WITH_KUBECONFIG, _WITH_TOKEN]},
    )

    name: Name = Field(description="Unique among your clusters.")
    kubeconfig: Annotated[str, StringConstraints(max_length=262_144)] | None = Field(
        None,
        description="YAML with everything in it: no path of a file, no program to run. Sealed, never shown.",
    )
    server: Url | None = Field(None, description="https; must be reachable from this service.")
    certificate_authority: Annotated[str, StringConstraints(max_length=65_536)] | None = Field(
        None, description="PEM."
    )
    token: Annotated[str, StringConstraints(max_length=16_384)] | None = Field(
        None, description="Of a service account. Sealed, never shown."
    )
    namespace: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        None, description="Where deployments go; `moorage` when absent, and made when missing."
    )
    prometheus_url: Url | None = Field(None, description="Seen from the cluster; else what the check finds.")
    rabbitmq_url: Url | None = Field(
        None, description="`amqp://…`, seen from the cluster. Sealed, never shown."
    )
    redis_url: Url | None = Field(
        None, description="`redis://…`, seen from the cluster. Sealed, never shown."
    )
    gateway: Annotated[str, StringConstraints(max_length=127)] | None = Field(
        None, description="`namespace/name` of a Gateway that takes routes."
    )

    def given(self) -> dict[str, str]:
        """What opens and describes the cluster, without what was left out."""
        return self.model_dump(exclude={"name"}, exclude_none=True)


class ShapeRequest(BaseModel):
    """What one node has for pods."""

    model_config = ConfigDict(extra="forbid", strict=True)
    cpus: float = Field(gt=0, le=4096, description="Cores.")
    memory_gib: float = Field(gt=0, le=LARGEST_GIB)
    gpu: Name | None = Field(None, description="As the node's label says it, such as `NVIDIA-L4`.")
    gpus: int = 0
    gpu_memory_gib: float | None = Field(None, gt=0, le=LARGEST_GIB, description="Of one accelerator.")

    def to_domain(self) -> NodeShape:
        of_gpu = self.gpu_memory_gib
        return NodeShape(
            self.cpus,
            int(self.memory_gib * GIB),
            self.gpu,
            self.gpus,
            None if of_gpu is None else int(of_gpu * GIB),
        )


class NodeGroupRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "l4",
                    "selector": {"pool": "l4"},
                    "price_per_hour": 0.8,
                    "max_nodes": 4,
                    "shape": {"cpus": 4, "memory_gib": 16, "gpu": "NVIDIA-L4", "gpus": 1},
                }
            ]
        },
    )
    name: Name = Field(description="Unique in the cluster.")
    selector: dict[str, str] = Field(description="Labels that exactly the nodes of the group have.")
    price_per_hour: float | None = Field(
        None,
        description="USD for one node, so that its offers have prices.",
        json_schema_extra={"minimum": 0},
    )
    max_nodes: int | None = Field(
        None, description="How many an autoscaler may make of it; then `shape` is needed."
    )
    shape: ShapeRequest | None = None

    def to_domain(self) -> NewNodeGroup:
        shape = None if self.shape is None else self.shape.to_domain()
        return NewNodeGroup(self.name, self.selector, self.price_per_hour, self.max_nodes, shape)


class ShapeDocument(BaseModel):
    cpus: float
    memory_gib: float
    gpu: str | None
    gpus: int
    gpu_memory_gib: float | None


class NodeGroupDocument(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [NODE_GROUP]})
    uuid: str
    cluster: str
    name: str
    selector: dict[str, str]
    discovered: bool = Field(description="By the clouds' labels; false: declared.")
    nodes: int | None = Field(description="That the last check counted.")
    max_nodes: int | None
    instance_type: str | None
    region: str | None
    spot: bool
    shape: ShapeDocument | None
    price_per_hour: float | None = Field(description="USD for one node; null: not known.")
    price_source: str | None
    price_as_of: str | None
    created_at: str


class NodeGroupList(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [NODE_GROUP]}]})
    items: list[NodeGroupDocument]


class PermissionDocument(BaseModel):
    verb: str
    resource: str
    allowed: bool
    needed_for: str = Field(description="What does not work without it.")


class StorageClassDocument(BaseModel):
    name: str
    provisioner: str
    default: bool
    access_modes: list[str] = Field(description="That its provisioner is known to do; empty: not known.")


class ToolDocument(BaseModel):
    name: str
    installed: bool
    version: str | None
    address: str | None
    detail: str | None


class GpuNodeDocument(BaseModel):
    node: str
    product: str
    memory_gib: float | None = Field(description="Of one accelerator.")
    count: int
    free: int


class ReportDocument(BaseModel):
    checked_at: str
    reachable: bool
    problem: str | None = Field(description="Why the cluster could not be read; the rest is then empty.")
    version: str | None
    permissions: list[PermissionDocument]
    storage_classes: list[StorageClassDocument]
    tools: list[ToolDocument]
    gateway_classes: list[str]
    gpu_nodes: list[GpuNodeDocument]
    warnings: list[str]


class ClusterDocument(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [CLUSTER]})
    uuid: str
    name: str
    provider: str
    server: str
    created_at: str
    created_by: str
    report: ReportDocument | None = Field(description="Of the last check.")
    nodegroups: list[NodeGroupDocument]


class ClusterList(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [CLUSTER]}]})
    items: list[ClusterDocument]
