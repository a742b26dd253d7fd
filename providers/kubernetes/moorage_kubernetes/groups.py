"""The node groups that clouds and autoscalers label their nodes with, and the GPUs on the nodes. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from moorage.domain.cluster import FoundGroup, GpuNode, NodeShape
from moorage_kubernetes.gpus import UNKNOWN_GPU
from moorage_kubernetes.nodes import NodeState

# A node may have several, as one that Karpenter made on EKS: the first counts.
GROUP_LABELS = (
    "karpenter.sh/nodepool",
    "eks.amazonaws.com/nodegroup",
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
    "agentpool",
    "doks.digitalocean.com/node-pool",
)
_SPOT = (
    ("karpenter.sh/capacity-type", "spot"),
    ("eks.amazonaws.com/capacitytype", "spot"),
    ("cloud.google.com/gke-spot", "true"),
    ("cloud.google.com/gke-preemptible", "true"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
)
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
ALL_NODES = "all-nodes"
_OS = "kubernetes.io/os"
_REGION = "topology.kubernetes.io/region"


def found_groups(nodes: Sequence[NodeState]) -> tuple[FoundGroup, ...]:
    """By the clouds' labels. A node without one belongs to no group: its owner may declare one for it. Where
    no node has one, as on a cluster of one's own machines, all are one group."""
    members: defaultdict[tuple[str, str], list[NodeState]] = defaultdict(list)
    for node in nodes:
        label = next((label for label in GROUP_LABELS if node.labels.get(label)), None)
        if label is not None:
            members[label, node.labels[label]].append(node)
    linux = [node for node in nodes if node.labels.get(_OS) == "linux"]
    if not members and linux:
        return (group_of(ALL_NODES, {_OS: "linux"}, linux),)
    return tuple(group_of(name, {label: name}, found) for (label, name), found in sorted(members.items()))


def group_of(name: str, selector: Mapping[str, str], nodes: Sequence[NodeState]) -> FoundGroup:
    """What the nodes that `selector` finds have in common; there is at least one."""
    return FoundGroup(
        name=name,
        selector=selector,
        nodes=len(nodes),
        shape=_shape(nodes),
        instance_type=_same(nodes, INSTANCE_TYPE),
        region=_same(nodes, _REGION),
        spot=all(_is_spot(node) for node in nodes),
    )


def gpu_nodes(nodes: Sequence[NodeState]) -> tuple[GpuNode, ...]:
    return tuple(
        GpuNode(
            name=node.name,
            product=node.gpu_product or UNKNOWN_GPU,
            memory_bytes=node.gpu_memory_bytes,
            count=node.allocatable.gpus,
            free=node.free.gpus if node.closed is None else 0,
        )
        for node in sorted(nodes, key=lambda node: node.name)
        if node.allocatable.gpus
    )


def _shape(nodes: Sequence[NodeState]) -> NodeShape | None:
    """What each of them has at least; None where they differ in their accelerators, for then nobody knows
    what the next one will have."""
    if len({node.gpu_product for node in nodes}) > 1:
        return None
    gpus = min(node.allocatable.gpus for node in nodes)
    return NodeShape(
        cpus=min(node.allocatable.cpu for node in nodes),
        memory_bytes=min(node.allocatable.memory for node in nodes),
        gpu=(nodes[0].gpu_product or UNKNOWN_GPU) if gpus else None,
        gpus=gpus,
        gpu_memory_bytes=min((m for n in nodes if (m := n.gpu_memory_bytes) is not None), default=None),
    )


def _same(nodes: Sequence[NodeState], label: str) -> str | None:
    values = {node.labels.get(label) for node in nodes}
    return values.pop() if len(values) == 1 else None


def _is_spot(node: NodeState) -> bool:
    told = {key.lower(): value.lower() for key, value in node.labels.items()}
    return any(told.get(label) == value for label, value in _SPOT)
