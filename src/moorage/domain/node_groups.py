"""Which node groups a cluster has: those its labels tell of, and those its owner declared.

A group is known by its cluster and its selector, and has an id that follows from both. So a check finds the
same groups again, and declaring one that was discovered takes its place instead of offering it twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from moorage.domain.catalog import Catalog
from moorage.domain.cluster import Cluster, FoundGroup, NodeGroup, NodeShape
from moorage.domain.naming import encode
from moorage.errors import FieldError

GIVEN = "given by its owner"
MOST_LABELS = 16
LONGEST_NAME = 64
MAX_NODES = 10_000
MAX_PRICE = 1_000_000

_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class NewNodeGroup:
    """A group as its owner declares it."""

    name: str
    selector: Mapping[str, str]
    price_per_hour: float | None = None
    max_nodes: int | None = None
    shape: NodeShape | None = None


def group_id(cluster_id: str, selector: Mapping[str, str]) -> str:
    """The one id of the nodes that `selector` finds in that cluster."""
    text = "\0".join((cluster_id, *(f"{key}={selector[key]}" for key in sorted(selector))))
    return f"ngp_{encode(hashlib.sha256(f'moorage node group {text}'.encode()).digest()[:16])}"


def declared(cluster: Cluster, new: NewNodeGroup, now: datetime) -> NodeGroup:
    priced = new.price_per_hour is not None
    return NodeGroup(
        id=group_id(cluster.id, new.selector),
        organization_id=cluster.organization_id,
        cluster_id=cluster.id,
        name=new.name,
        selector=dict(new.selector),
        discovered=False,
        created_at=now,
        price_per_hour=new.price_per_hour,
        price_source=GIVEN if priced else None,
        price_as_of=now.date().isoformat() if priced else None,
        shape=new.shape,
        max_nodes=new.max_nodes,
    )


def discovered(cluster: Cluster, found: FoundGroup, catalog: Catalog, now: datetime) -> NodeGroup:
    kind, region = found.instance_type, found.region
    price = None if kind is None else catalog.instance_price(kind, region, spot=found.spot)
    return NodeGroup(
        id=group_id(cluster.id, found.selector),
        organization_id=cluster.organization_id,
        cluster_id=cluster.id,
        name=found.name,
        selector=dict(found.selector),
        discovered=True,
        created_at=now,
        price_per_hour=None if price is None else price.price_per_hour,
        price_source=None if price is None else price.source,
        price_as_of=None if price is None else price.as_of,
        instance_type=found.instance_type,
        region=found.region,
        spot=found.spot,
        shape=found.shape,
    )


@dataclass(frozen=True, slots=True)
class Regrouping:
    """What a check makes of the groups: `new` are not among the known ones, `changed` are, under the version
    they were read with; `there` is all that there are then, the known ones in their order first."""

    new: tuple[NodeGroup, ...]
    changed: tuple[NodeGroup, ...]
    there: tuple[NodeGroup, ...]


def regrouped(
    cluster: Cluster,
    known: Sequence[NodeGroup],
    found: Sequence[FoundGroup],
    catalog: Catalog,
    now: datetime,
) -> Regrouping:
    """Discovered groups follow what was found, declared ones stay as they are. `known` are those of the
    cluster that are there."""
    seen = {group.id: group for group in (discovered(cluster, f, catalog, now) for f in found)}
    changed: list[NodeGroup] = []
    there: list[NodeGroup] = []
    for old in known:
        after = _followed(old, seen.pop(old.id, None), now)
        if after != old:
            changed.append(after)
        if after.removed_at is None:
            there.append(after)
    new = tuple(seen.values())
    return Regrouping(new, tuple(changed), (*there, *new))


def _followed(old: NodeGroup, seen: NodeGroup | None, now: datetime) -> NodeGroup:
    if not old.discovered:
        return old
    if seen is None:
        return replace(old, removed_at=now)
    return replace(seen, created_at=old.created_at, version=old.version)


# -- the rules of a declared group ---------------------------------------------------------------------------


def broken_rules(new: NewNodeGroup) -> tuple[FieldError, ...]:
    return (*_name(new), *_selector(new.selector), *_numbers(new), *_shape(new.shape))


def _name(new: NewNodeGroup) -> Iterator[FieldError]:
    if not 1 <= len(new.name) <= LONGEST_NAME or not new.name.isprintable():
        yield FieldError("body.name", "name", f"A name is 1 to {LONGEST_NAME} printable characters.")


def _selector(selector: Mapping[str, str]) -> Iterator[FieldError]:
    if not 1 <= len(selector) <= MOST_LABELS:
        message = f"A selector has 1 to {MOST_LABELS} labels that all nodes of the group have."
        yield FieldError("body.selector", "length", message)
    for key, value in list(selector.items())[:MOST_LABELS]:
        prefix, slash, name = key.rpartition("/")
        if not _WORD.fullmatch(name) or (slash and not _PREFIX.fullmatch(prefix)):
            message = (
                "A label's key is up to 63 letters, digits, '-', '_' and '.', between letters or digits; a "
                "DNS name and '/' may stand before it."
            )
            yield FieldError(f"body.selector.{key[:64]}", "label_key", message)
        if value and not _WORD.fullmatch(value):
            message = (
                "A label's value is up to 63 letters, digits, '-', '_' and '.', between letters or digits."
            )
            yield FieldError(f"body.selector.{key[:64]}", "label_value", message)


def _numbers(new: NewNodeGroup) -> Iterator[FieldError]:
    price = new.price_per_hour
    if price is not None and not 0 <= price <= MAX_PRICE:
        yield FieldError("body.price_per_hour", "range", f"It is from 0 to {MAX_PRICE} USD.")
    if new.max_nodes is not None and not 1 <= new.max_nodes <= MAX_NODES:
        yield FieldError("body.max_nodes", "range", f"It is from 1 to {MAX_NODES}.")
    if new.max_nodes is not None and new.shape is None:
        message = "A group that grows needs its shape: there may be no node of it to look at."
        yield FieldError("body.shape", "needed_by_max_nodes", message)


def _shape(shape: NodeShape | None) -> Iterator[FieldError]:
    if shape is None:
        return
    if not 0 < shape.cpus <= 4096:
        yield FieldError("body.shape.cpus", "range", "It is above 0 and at most 4096.")
    if not 0 < shape.memory_bytes <= 2**50:
        yield FieldError("body.shape.memory_gib", "range", "It is above 0 and at most 1048576.")
    if not 0 <= shape.gpus <= 64:
        yield FieldError("body.shape.gpus", "range", "It is from 0 to 64.")
    if shape.gpus and shape.gpu is None:
        yield FieldError("body.shape.gpu", "required", "Name the accelerator, such as NVIDIA-L4.")
    if shape.gpu is not None and not shape.gpus:
        yield FieldError("body.shape.gpus", "required", "Say how many of them a node has.")
    if shape.gpu is not None and not (1 <= len(shape.gpu) <= 64 and shape.gpu.isprintable()):
        yield FieldError("body.shape.gpu", "name", "It is 1 to 64 printable characters.")
    if shape.gpu_memory_bytes is not None and not (shape.gpu and 0 < shape.gpu_memory_bytes <= 2**50):
        message = "It is above 0, and of the accelerator that `gpu` names."
        yield FieldError("body.shape.gpu_memory_gib", "range", message)
