"""Who holds which field: server-side apply, and what every other write does to what managers hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from moorage_kubernetes.testing.fields import (
    Path,
    as_fields_v1,
    from_fields_v1,
    leaves,
    merged,
    remove,
    shown,
)
from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.schemas import Schemas
from moorage_kubernetes.testing.statuses import Json, apply_conflict
from moorage_kubernetes.testing.store import clone


@dataclass(frozen=True, slots=True)
class Manager:
    """`operation` is Apply or Update."""

    name: str
    operation: str
    subresource: str = ""


Held = dict[Manager, set[Path]]


def held_of(value: Json) -> Held:
    held: Held = {}
    for entry in value["metadata"].get("managedFields") or ():
        manager = Manager(entry["manager"], entry["operation"], entry.get("subresource", ""))
        held[manager] = from_fields_v1(entry["fieldsV1"])
    return held


def write_held(value: Json, held: Held, api_version: str, now: str) -> None:
    """Writes metadata.managedFields; a manager that holds nothing is left out."""
    before = {
        (e["manager"], e["operation"], e.get("subresource", "")): e
        for e in value["metadata"].get("managedFields") or ()
    }
    entries = []
    for manager, paths in held.items():
        if not paths:
            continue
        entry: Json = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": api_version,
            "time": now,
            "fieldsType": "FieldsV1",
            "fieldsV1": as_fields_v1(paths),
        }
        if manager.subresource:
            entry["subresource"] = manager.subresource
        old = before.get((manager.name, manager.operation, manager.subresource))
        same = old is not None and old["fieldsV1"] == entry["fieldsV1"]
        entries.append(old if same else entry)
    value["metadata"]["managedFields"] = entries


def applied(
    schemas: Schemas, resource: Resource, live: Json, config: Json, manager: Manager, *, force: bool
) -> tuple[Json, Held]:
    """`live` after `config` was applied to it, and who holds what then.

    Fields of the manager's earlier apply that are not in `config` go, unless another holds them too.
    Raises ApiError 409 where another manager holds a field with another value, unless `force`.
    """
    root = schemas.root(resource)
    wanted = leaves(schemas, root, config)
    present = leaves(schemas, root, live)
    held = held_of(live)
    conflicts = _conflicts(wanted, present, held, manager)
    if conflicts and not force:
        raise apply_conflict(
            [(f'"{who.name}" using {resource.api_version}', shown(path)) for who, path in conflicts]
        )
    for who, path in conflicts:
        held[who].discard(path)
    made: Json = merged(schemas, root, clone(live), clone(config))
    others = set().union(*(paths for who, paths in held.items() if who != manager))
    gone = held.get(manager, set()) - wanted.keys() - others
    for path in sorted(
        gone, key=lambda path: path[-1] != "."
    ):  # whole items first: a key is one of its fields
        if not _keeps_an_item(path, others):
            remove(schemas, root, made, path)
    held[manager] = set(wanted)
    return made, held


def _keeps_an_item(path: Path, others: set[Path]) -> bool:
    """Whether the path is an item of a keyed list, or its key, in which another manager holds something."""
    item = path[:-1]
    if not item or not item[-1].startswith("k:"):
        return False
    is_key = path[-1] == "." or path[-1][2:] in json.loads(item[-1][2:])
    return is_key and any(one[: len(item)] == item for one in others)


def _conflicts(
    wanted: dict[Path, Any], present: dict[Path, Any], held: Held, manager: Manager
) -> list[tuple[Manager, Path]]:
    return [
        (who, path)
        for who, paths in held.items()
        if who != manager
        for path in sorted(paths & wanted.keys())
        if path in present and path[-1] != "." and present[path] != wanted[path]
    ]


def updated(schemas: Schemas, resource: Resource, before: Json, after: Json, manager: Manager) -> Held:
    """Who holds what after a write that was no apply: the writer holds what changed, and no one else."""
    root = schemas.root(resource)
    old, new = leaves(schemas, root, before), leaves(schemas, root, after)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    gone = old.keys() - new.keys()
    held = held_of(before)
    for who in held:
        held[who] = held[who] - gone - (changed if who != manager else set())
    if changed:
        held[manager] = held.get(manager, set()) | changed
    return held


def created(schemas: Schemas, resource: Resource, value: Json, manager: Manager) -> Held:
    return {manager: set(leaves(schemas, schemas.root(resource), value))}
