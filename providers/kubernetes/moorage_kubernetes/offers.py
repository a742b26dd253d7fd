"""What the node groups of a cluster have to offer: what is free on their nodes, and what may be added. Pure.

An offer is a node group for one replica. A group whose nodes differ in their accelerators is an offer for
each kind, as is each number of accelerators that a model may be shared by. Whether the scheduler will agree
is decided by requests alone, so the same sum is made here: a replica must fit one node whole.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from moorage.domain.cluster import NodeGroup, NodeShape
from moorage.domain.compute import GIB, Availability, Offer, Requirements
from moorage_kubernetes.demand import replica_demand
from moorage_kubernetes.gpus import (
    MEMORY_LABEL,
    MIB,
    PRODUCT_LABELS,
    UNKNOWN_GPU,
    Accelerator,
    accelerator_of,
    least,
    telling_labels,
)
from moorage_kubernetes.nodes import Amounts, NodeState

PROVIDER = "kubernetes"
NO_PRICE = "not known: give the node group a price per hour"
SHARED_COUNTS = (2, 4, 8)  # sizes that attention heads divide by
PODS_PER_NODE = 110  # the kubelet's default, for nodes that are not there yet


@dataclass(frozen=True, slots=True)
class Kind:
    """The nodes of a group that have the same accelerator, or none; `narrowed` are the labels that tell them
    from the rest of it. `node` is what the largest of them can allocate, or what one will have that is added;
    None where neither is known."""

    accelerator: Accelerator | None
    nodes: tuple[NodeState, ...]
    node: Amounts | None
    narrowed: Mapping[str, str]
    may_grow_by: int


@dataclass(frozen=True, slots=True)
class Room:
    """Replicas that fit now, and with all nodes that may be added."""

    now: int
    grown: int

    def availability(self, need: Requirements) -> Availability:
        if self.now >= max(need.replicas, need.max_replicas):
            return Availability.HIGH
        if self.now >= need.replicas:
            return Availability.MEDIUM
        return Availability.LOW if self.grown >= need.replicas else Availability.NONE


def make_offers(
    need: Requirements,
    groups: Sequence[NodeGroup],
    nodes: Sequence[NodeState],
    today: date,
    provider: str = PROVIDER,
) -> list[Offer]:
    """Of each group, one for each kind of node and count of accelerators; `provider` is who sells them."""
    offers: list[Offer] = []
    for group in groups:
        kinds = _kinds(group, [node for node in nodes if node.matches(group.selector)], need)
        for kind in kinds:
            offers.extend(
                _offer(need, group, kind, count, provider, alone=len(kinds) == 1, today=today)
                for count in _counts(need, kind)
            )
    return offers


# -- kinds of nodes ---------------------------------------------------------------------------------------


def _kinds(group: NodeGroup, nodes: Sequence[NodeState], need: Requirements) -> list[Kind]:
    """A replica that wants no accelerator may go to any node, whatever it has."""
    if not nodes:
        return [_kind_to_come(group)]
    if _asked_gpus(need) == 0:
        return [_kind(group, {}, None, nodes, nodes, alone=True)]
    alike: defaultdict[tuple[bool, tuple[tuple[str, str], ...]], list[NodeState]] = defaultdict(list)
    for node in nodes:
        labels = telling_labels(node.labels) if node.allocatable.gpus else {}
        alike[bool(node.allocatable.gpus), tuple(sorted(labels.items()))].append(node)
    alone = len(alike) == 1
    return [
        _kind(group, dict(labels), _accelerator(found) if accelerated else None, found, nodes, alone=alone)
        for (accelerated, labels), found in sorted(alike.items())
    ]


def _accelerator(nodes: Sequence[NodeState]) -> Accelerator:
    return least(
        [accelerator_of(node.labels) or Accelerator(UNKNOWN_GPU, UNKNOWN_GPU, None, None) for node in nodes]
    )


def _kind(
    group: NodeGroup,
    labels: Mapping[str, str],
    accelerator: Accelerator | None,
    nodes: Sequence[NodeState],
    all_nodes: Sequence[NodeState],
    *,
    alone: bool,
) -> Kind:
    """Which kind of node an autoscaler adds to a mixed group nobody can tell: it grows by none."""
    return Kind(
        accelerator=accelerator,
        nodes=tuple(nodes),
        node=max((n.allocatable for n in nodes), key=lambda a: (a.gpus, a.memory, a.cpu)),
        narrowed={} if alone else labels,
        may_grow_by=max(0, (group.max_nodes or 0) - len(all_nodes)) if alone else 0,
    )


def _kind_to_come(group: NodeGroup) -> Kind:
    """Of a group that has no node now."""
    shape = group.shape
    return Kind(
        accelerator=_accelerator_to_come(group, shape) if shape else None,
        nodes=(),
        node=Amounts(shape.cpus, shape.memory_bytes, shape.gpus, PODS_PER_NODE) if shape else None,
        narrowed={},
        may_grow_by=group.max_nodes or 0,
    )


def _accelerator_to_come(group: NodeGroup, shape: NodeShape) -> Accelerator | None:
    """As the group's own labels would tell, with the memory that its owner gave."""
    if not shape.gpus:
        return None
    labels = {**group.selector, PRODUCT_LABELS[0]: shape.gpu or UNKNOWN_GPU}
    if shape.gpu_memory_bytes is not None:
        labels[MEMORY_LABEL] = str(shape.gpu_memory_bytes // MIB)
    return accelerator_of(labels)


# -- offers -----------------------------------------------------------------------------------------------


def _asked_gpus(need: Requirements) -> int | None:
    return need.workload.resources.gpus if need.workload is not None else None


def _counts(need: Requirements, kind: Kind) -> tuple[int, ...]:
    """Several accelerators only where they were asked for, or where a runtime can share a model among them:
    the others would leave them idle."""
    asked = _asked_gpus(need)
    if kind.accelerator is None:
        return (0,)
    if asked is not None:
        return (asked,)
    if not kind.accelerator.whole or not any(option.shards for option in need.options):
        return (1,)
    most = kind.node.gpus if kind.node else 0
    return (1, *(count for count in SHARED_COUNTS if count <= most))


def _offer(
    need: Requirements, group: NodeGroup, kind: Kind, count: int, provider: str, *, alone: bool, today: date
) -> Offer:
    replica = replica_demand(need.workload, _needed_bytes(need, accelerated=count > 0), count)
    asked = _asked_gpus(need) or 0
    room = Room(0, 0) if asked > count else _room(kind, replica)
    memory, usable = _memory(need, kind, count)
    price, source, as_of = _price(group, kind, replica, today)
    accelerator = kind.accelerator
    return Offer(
        id=_id(group, kind, count, alone=alone),
        provider=provider,
        gpu=accelerator.name if accelerator and count else None,
        count=count,
        memory_bytes=memory,
        usable_bytes=usable,
        price_per_hour=price,
        price_source=source,
        price_as_of=as_of,
        region=group.region,
        spot=group.spot,
        availability=room.availability(need),
        compute_capability=accelerator.compute_capability if accelerator and count else None,
        cuda=accelerator.cuda if accelerator and count else None,
        note="; ".join(_notes(need, kind, replica, room, asked)),
        ref={
            "selector": json.dumps({**group.selector, **kind.narrowed}, sort_keys=True),
            "gpus": str(count),
            "node_group": group.id,
        },
    )


def _id(group: NodeGroup, kind: Kind, count: int, *, alone: bool) -> str:
    """The group's own, with what tells the offers of one group apart."""
    name = "cpu" if kind.accelerator is None else "-".join(kind.narrowed.values()) or "gpu"
    parts = [group.id, *([] if alone else [name]), *([f"x{count}"] if count > 1 else [])]
    return "/".join(parts)


def _needed_bytes(need: Requirements, *, accelerated: bool) -> int:
    return min((o.estimate.total_bytes for o in need.options if o.accelerator is accelerated), default=0)


def _room(kind: Kind, replica: Amounts) -> Room:
    now = sum(node.free.times(replica) for node in kind.nodes if node.closed is None)
    added = 0 if kind.node is None else kind.node.times(replica) * kind.may_grow_by
    return Room(now, now + added)


def _memory(need: Requirements, kind: Kind, count: int) -> tuple[int, int]:
    """Of one accelerator, and usable by a replica; of main memory for an offer without. Parts of one card add
    up to no more than a card: a second unit is not counted."""
    if count and kind.accelerator is not None:
        units = count if kind.accelerator.whole else 1
        return kind.accelerator.memory_bytes or 0, (kind.accelerator.usable_bytes or 0) * units
    memory = kind.node.memory if kind.node else 0
    limit = need.workload.resources.memory_limit if need.workload is not None else None
    return memory, memory if limit is None else min(memory, limit)


def _price(group: NodeGroup, kind: Kind, replica: Amounts, today: date) -> tuple[float, str, str]:
    """The part of a node that a replica takes away from others, at the node's price."""
    if group.price_per_hour is None:
        return 0.0, NO_PRICE, today.isoformat()
    share = 1.0 if kind.node is None else _share(replica, kind.node)
    source = group.price_source or "given for the node group"
    if share < 1:
        source = f"{source}; {share:.0%} of a node"
    return round(group.price_per_hour * share, 6), source, group.price_as_of or today.isoformat()


def _share(replica: Amounts, node: Amounts) -> float:
    pairs = ((replica.cpu, node.cpu), (replica.memory, node.memory), (replica.gpus, node.gpus))
    return min(1.0, max(asked / has if has else 1.0 for asked, has in pairs if asked))


# -- in words ---------------------------------------------------------------------------------------------


def _notes(need: Requirements, kind: Kind, replica: Amounts, room: Room, asked: int) -> Iterable[str]:
    if kind.node is None:
        yield "the group has no node to look at, and nothing says what one would have"
        return
    open_nodes = [node for node in kind.nodes if node.closed is None]
    if kind.nodes:
        yield _free(open_nodes, kind.nodes, gpus=replica.gpus > 0)
    if asked > replica.gpus:
        yield f"{_gpus(asked)} asked for each replica, its nodes have none"
    elif not any(most.times(replica) for most in (kind.node, *(n.allocatable for n in kind.nodes))):
        yield f"no node can hold a replica of {_told(replica)}: the largest has {_told(kind.node)}"
    elif room.now < need.replicas:
        yield f"room for {room.now} of {need.replicas} replicas of {_told(replica)} now"
    if kind.may_grow_by:
        yield f"{kind.may_grow_by} more {_nodes(kind.may_grow_by)} may be added"
    if kind.accelerator is not None and replica.gpus and kind.accelerator.memory_bytes is None:
        yield "no label tells the memory of its GPUs (nvidia.com/gpu.memory)"
    closed = [node for node in kind.nodes if node.closed is not None]
    if closed:
        reasons = sorted({node.closed or "" for node in closed})
        yield f"{len(closed)} {_nodes(len(closed))} left out: {', '.join(reasons)}"


def _free(open_nodes: Sequence[NodeState], nodes: Sequence[NodeState], *, gpus: bool) -> str:
    free = sum((node.free for node in open_nodes), Amounts())
    total = sum((node.allocatable for node in nodes), Amounts())
    where = f"on {len(nodes)} {_nodes(len(nodes))}"
    if gpus:
        return f"{free.gpus} of {_gpus(total.gpus)} free {where}"
    return (
        f"{free.cpu:g} of {total.cpu:g} cores and {free.memory / GIB:.1f} of {total.memory / GIB:.1f} GiB "
        f"free {where}"
    )


def _told(amounts: Amounts) -> str:
    words = [f"{amounts.cpu:g} {'core' if amounts.cpu == 1 else 'cores'}", f"{amounts.memory / GIB:.1f} GiB"]
    return ", ".join([*words, _gpus(amounts.gpus)] if amounts.gpus else words)


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _nodes(count: int) -> str:
    return "node" if count == 1 else "nodes"
