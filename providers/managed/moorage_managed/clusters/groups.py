"""The nodes of an operator's cluster, as groups with a price. Pure.

An organization declares node groups and the service remembers them; here nobody does. So they follow from
the labels of the nodes each time: the clouds' own, the kind of machine, the operator's price. Each group is
what a selector of labels finds, because that is all a pod can ask for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime

from moorage.domain.cluster import FoundGroup, NodeGroup
from moorage.domain.node_groups import group_id
from moorage.ports.provider import OPERATOR
from moorage_kubernetes.groups import INSTANCE_TYPE, found_groups, group_of
from moorage_kubernetes.nodes import NodeState
from moorage_managed.clusters.prices import LABEL, NodePrice, dearest, labelled, listed


def operator_groups(cluster: str, nodes: Sequence[NodeState], now: datetime) -> tuple[NodeGroup, ...]:
    """Of the cluster of that name. A node that no label tells from others is in a group only where no node of
    the cluster can be told."""
    return tuple(_node_group(cluster, found, price, now) for found, price in _priced(nodes))


def _priced(nodes: Sequence[NodeState]) -> Iterator[tuple[FoundGroup, NodePrice | None]]:
    found = found_groups(nodes)
    rest = _without(nodes, found)
    found += _alike(rest, INSTANCE_TYPE)
    for group in found:
        yield from _by_price(group, [node for node in nodes if node.matches(group.selector)])
    rest = _without(rest, found)
    told = [node for node in rest if labelled(node) is not None]
    for group in _alike(told, LABEL):
        yield group, dearest([node for node in told if node.matches(group.selector)])
    if rest and not found and not told:
        yield group_of("nodes", {}, rest), None


def _without(nodes: Sequence[NodeState], groups: Sequence[FoundGroup]) -> list[NodeState]:
    return [node for node in nodes if not any(node.matches(group.selector) for group in groups)]


def _alike(nodes: Sequence[NodeState], label: str) -> tuple[FoundGroup, ...]:
    """The nodes that have the label, by its value."""
    members: defaultdict[str, list[NodeState]] = defaultdict(list)
    for node in nodes:
        if node.labels.get(label):
            members[node.labels[label]].append(node)
    return tuple(group_of(value, {label: value}, found) for value, found in sorted(members.items()))


def _by_price(group: FoundGroup, nodes: Sequence[NodeState]) -> Iterator[tuple[FoundGroup, NodePrice | None]]:
    """Nodes of one group that differ in price are offered apart. Where some do not say theirs, no selector
    finds those, and the dearest price stands for all."""
    if len({node.labels.get(LABEL) for node in nodes}) > 1 and all(labelled(n) is not None for n in nodes):
        for part in _alike(nodes, LABEL):
            alike = [node for node in nodes if node.matches(part.selector)]
            name, selector = f"{group.name} at {part.name}", {**group.selector, **part.selector}
            yield group_of(name, selector, alike), dearest(alike)
    else:
        yield group, dearest(nodes) or listed(group)


def _node_group(cluster: str, found: FoundGroup, price: NodePrice | None, now: datetime) -> NodeGroup:
    return NodeGroup(
        id=group_id(f"{OPERATOR}{cluster}", found.selector),
        organization_id="",  # of none: all of them may be placed there
        cluster_id=cluster,
        name=found.name,
        selector=found.selector,
        discovered=True,
        created_at=now,
        price_per_hour=None if price is None else price.per_hour,
        price_source=None if price is None else price.source,
        price_as_of=None if price is None else price.as_of,
        instance_type=found.instance_type,
        region=found.region,
        spot=found.spot,
        shape=found.shape,
    )
