"""Nodes, pods and node groups that tests begin from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any  # the client's models are not typed

from kubernetes_asyncio.client import models

from moorage.domain.cluster import NodeGroup, NodeShape
from moorage.domain.compute import GIB, Estimate, Requirements, RuntimeOption
from moorage.domain.workload import Resources, Workload

L4 = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034", "nvidia.com/gpu.count": "1"}
NOW = datetime(2026, 11, 21, tzinfo=UTC)
POOL = {"pool": "a"}


def node(
    name: str = "n1",
    labels: Mapping[str, str] = POOL,
    *,
    cpu: str = "8",
    memory: str = "32Gi",
    gpus: int = 0,
    ready: bool = True,
    cordoned: bool = False,
    taints: Mapping[str, str] | None = None,
) -> Any:
    allocatable = {"cpu": cpu, "memory": memory, "pods": "110"}
    if gpus:
        allocatable["nvidia.com/gpu"] = str(gpus)
    return models.V1Node(
        metadata=models.V1ObjectMeta(name=name, labels=dict(labels)),
        spec=models.V1NodeSpec(
            unschedulable=cordoned or None,
            taints=[models.V1Taint(key=key, effect=effect) for key, effect in (taints or {}).items()] or None,
        ),
        status=models.V1NodeStatus(
            allocatable=allocatable,
            conditions=[models.V1NodeCondition(type="Ready", status="True" if ready else "Unknown")],
        ),
    )


def container(requests: Mapping[str, str] | None = None, **more: Any) -> Any:
    limits = more.pop("limits", None)
    resources = models.V1ResourceRequirements(requests=dict(requests or {}), limits=limits)
    return models.V1Container(name="c", resources=resources, **more)


def pod(on: str | None, *containers: Any, phase: str = "Running", **spec: Any) -> Any:
    return models.V1Pod(
        metadata=models.V1ObjectMeta(name="p"),
        spec=models.V1PodSpec(node_name=on, containers=list(containers), **spec),
        status=models.V1PodStatus(phase=phase),
    )


def group(
    id_: str = "ngp_a",
    selector: Mapping[str, str] = POOL,
    *,
    price: float | None = 2.0,
    shape: NodeShape | None = None,
    max_nodes: int | None = None,
) -> NodeGroup:
    return NodeGroup(
        id=id_,
        organization_id="org_x",
        cluster_id="cls_x",
        name="a",
        selector=selector,
        discovered=False,
        created_at=NOW,
        price_per_hour=price,
        price_source="made up for tests" if price is not None else None,
        price_as_of="2026-11-01" if price is not None else None,
        shape=shape,
        max_nodes=max_nodes,
    )


def need(
    *options: tuple[bool, float],
    shards: bool = False,
    replicas: int = 1,
    max_replicas: int = 1,
    resources: Resources | None = None,
) -> Requirements:
    """`options` are (on an accelerator, GiB); none: of an image."""
    return Requirements(
        options=tuple(
            RuntimeOption(
                "vllm" if accelerator else "onnx",
                accelerator,
                Estimate(int(gib * GIB), gib, ()),
                shards=shards and accelerator,
                heads=32 if accelerator else None,
            )
            for accelerator, gib in options
        )
        or tuple(RuntimeOption("image", on, Estimate(0, 0.0, ())) for on in (False, True)),
        replicas=replicas,
        source_kind="hub" if options else "image",
        max_replicas=max_replicas,
        workload=None if resources is None else Workload(resources=resources),
    )
