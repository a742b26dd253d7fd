"""What a node of the operator's costs, and what a replica does where nothing tells that. Pure.

No bill comes for a cluster of one's own. So the operator's word counts first, by a label on the nodes; then
what the cloud asks for the kind of machine; then what the settings say; and an estimate is the last resort,
because an offer without a price would always be the cheapest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moorage.domain.cluster import FoundGroup
from moorage.domain.compute import GB, Offer, Requirements
from moorage_kubernetes.demand import replica_demand
from moorage_kubernetes.nodes import NodeState
from moorage_managed.offers import GB_HOUR, GPU_GB_HOUR, PRICE_AS_OF, VCPU_HOUR, asked_bytes
from moorage_managed.settings import PREFIX
from moorage_registries import load
from moorage_registries.schema import Instance

LABEL = "moorage.io/price-per-hour"  # USD for the node


@dataclass(frozen=True, slots=True)
class NodePrice:
    """USD per hour for one node; `as_of` is an ISO date, None: it holds now."""

    per_hour: float
    source: str
    as_of: str | None = None


def labelled(node: NodeState) -> float | None:
    """What the operator says of a node. A label that is no price says nothing."""
    try:
        price = float(node.labels.get(LABEL, ""))
    except ValueError:
        return None
    return price if math.isfinite(price) and price >= 0 else None


def dearest(nodes: Sequence[NodeState]) -> NodePrice | None:
    """Of nodes of which a replica may get any."""
    said = [price for node in nodes if (price := labelled(node)) is not None]
    return NodePrice(max(said), f"label {LABEL} of its nodes") if said else None


def listed(group: FoundGroup) -> NodePrice | None:
    """What the registry knows of the kind of machine. The price of another region stands in for one that is
    not listed, and the one on demand for spot; the source then says so."""
    if group.instance_type is None:
        return None
    wanted = group.instance_type.lower()
    found = [each for each in load().instances if each.type.lower() == wanted]
    near = next((each for each in found if each.region is not None and each.region == group.region), None)
    chosen = near or next(iter(found), None)
    return None if chosen is None else _of(chosen, group)


def _of(instance: Instance, group: FoundGroup) -> NodePrice:
    remarks = [f"{instance.source} ({instance.cloud} {instance.type})"]
    if instance.region is not None and group.region not in (None, instance.region):
        remarks.append(f"of {instance.region}, none is listed for {group.region}")
    per_hour = instance.price_per_hour
    if group.spot:
        per_hour = instance.spot_price_per_hour or per_hour
        if instance.spot_price_per_hour is None:
            remarks.append("on demand, none is listed for spot")
    return NodePrice(per_hour, "; ".join(remarks), instance.as_of.isoformat())


def priced_by_replica(offer: Offer, need: Requirements, setting: float | None) -> Offer:
    """An offer of nodes that have no price: by the setting, else as the local driver estimates."""
    if setting is not None:
        return replace(offer, price_per_hour=setting, price_source=_BY_SETTING)
    replica = replica_demand(need.workload, asked_bytes(need, accelerator=offer.count > 0), offer.count)
    price = replica.cpu * VCPU_HOUR + replica.memory / GB * GB_HOUR
    price += offer.count * offer.memory_bytes / GB * GPU_GB_HOUR if offer.count else 0
    return replace(offer, price_per_hour=round(price, 4), price_source=_ESTIMATED, price_as_of=PRICE_AS_OF)


_BY_SETTING = f"set by the operator ({PREFIX}PRICE_PER_HOUR)"
_ESTIMATED = (
    f"estimate, not a bill: ${VCPU_HOUR} per vCPU, ${GB_HOUR} per GB and ${GPU_GB_HOUR} per GB of GPU memory "
    f"and hour; label the nodes {LABEL}"
)
