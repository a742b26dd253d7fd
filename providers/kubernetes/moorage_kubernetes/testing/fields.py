"""Fields by path, as managedFields writes them: what a manager holds, and how two objects differ.

A path is a tuple of steps: `f:spec` for a field, `k:{"name":"server"}` for an item of a keyed list, `v:1` for
a member of a set, and `.` last for such an item itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from moorage_kubernetes.testing.schemas import Schemas
from moorage_kubernetes.testing.statuses import Json

Path = tuple[str, ...]
SERVER_OWN = frozenset(
    {
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
    }
)


def leaves(schemas: Schemas, root: Json, value: Json) -> dict[Path, Any]:  # Any: JSON
    """Every field that someone can hold, with its value; an item of a keyed list has a `.` with None."""
    found: dict[Path, Any] = {}
    for name, inner in value.items():
        if name in ("apiVersion", "kind"):
            continue
        if name == "metadata":
            inner = {key: item for key, item in inner.items() if key not in SERVER_OWN}
            if not inner:
                continue
        found.update(_leaves(schemas, schemas.child(root, name) or {}, inner, (f"f:{name}",)))
    return found


def _leaves(schemas: Schemas, node: Json, value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    node = schemas.resolve(node)
    if isinstance(value, dict) and value and node.get("x-kubernetes-map-type") != "atomic":
        for name, inner in value.items():
            yield from _leaves(schemas, schemas.child(node, name) or {}, inner, (*path, f"f:{name}"))
    elif isinstance(value, list) and value and _keyed(node):
        item = schemas.item(node)
        for inner in value:
            step = (*path, item_step(schemas, node, inner))
            yield (*step, "."), None
            for name, part in inner.items():
                yield from _leaves(schemas, schemas.child(item, name) or {}, part, (*step, f"f:{name}"))
    elif isinstance(value, list) and value and node.get("x-kubernetes-list-type") == "set":
        for inner in value:
            yield (*path, f"v:{json.dumps(inner)}"), inner
    else:
        yield path, value


def _keyed(node: Json) -> bool:
    return node.get("x-kubernetes-list-type") == "map"


def item_step(schemas: Schemas, node: Json, item: Json) -> str:
    """`k:{…}` of an item of a keyed list; a key that was left out has its default."""
    declared = schemas.item(node).get("properties") or {}
    keys = {}
    for key in sorted(node["x-kubernetes-list-map-keys"]):
        default = "TCP" if key == "protocol" else (declared.get(key) or {}).get("default")
        found = item.get(key, default)
        if found is not None:
            keys[key] = found
    return "k:" + json.dumps(keys, separators=(",", ":"))


def merged(schemas: Schemas, node: Json, live: Any, applied: Any) -> Any:  # Any: JSON
    """`live` with all that `applied` says; keyed lists and sets are united, other lists replaced."""
    node = schemas.resolve(node)
    if isinstance(live, dict) and isinstance(applied, dict) and node.get("x-kubernetes-map-type") != "atomic":
        made = dict(live)
        for name, inner in applied.items():
            made[name] = merged(schemas, schemas.child(node, name) or {}, live.get(name), inner)
        return made
    if isinstance(live, list) and isinstance(applied, list):
        if _keyed(node):
            return _merged_items(schemas, node, live, applied)
        if node.get("x-kubernetes-list-type") == "set":
            return [*live, *(one for one in applied if one not in live)]
    return applied


def _merged_items(schemas: Schemas, node: Json, live: list[Json], applied: list[Json]) -> list[Json]:
    old = {item_step(schemas, node, item): item for item in live}
    new = {item_step(schemas, node, item): item for item in applied}
    item = schemas.item(node)
    made = [merged(schemas, item, old.get(step), one) for step, one in new.items()]
    return made + [one for step, one in old.items() if step not in new]


def remove(schemas: Schemas, root: Json, value: Json, path: Path) -> None:
    """Takes one field out, and what holds it where that is empty then."""
    _remove(schemas, root, value, path)


def _remove(schemas: Schemas, node: Json, value: Any, path: Path) -> None:
    step, rest = path[0], path[1:]
    if step.startswith("f:"):
        name = step[2:]
        if not isinstance(value, dict) or name not in value:
            return
        if not rest:
            del value[name]
            return
        _remove(schemas, schemas.child(node, name) or {}, value[name], rest)
        if value[name] in ({}, []):
            del value[name]
    elif step.startswith("v:") and isinstance(value, list):
        value[:] = [one for one in value if f"v:{json.dumps(one)}" != step]
    elif step.startswith("k:") and isinstance(value, list):
        node = schemas.resolve(node)
        for one in [one for one in value if item_step(schemas, node, one) == step]:
            if rest == (".",):
                value.remove(one)
            else:
                _remove(schemas, schemas.item(node), one, rest)


def as_fields_v1(paths: Iterable[Path]) -> Json:
    tree: Json = {}
    for path in sorted(paths):
        branch = tree
        for step in path:
            branch = branch.setdefault(step, {})
    return tree


def from_fields_v1(tree: Json) -> set[Path]:
    found: set[Path] = set()
    _collect(tree, (), found)
    return found


def _collect(tree: Json, path: Path, found: set[Path]) -> None:
    if not tree and path:
        found.add(path)
    for step, inner in tree.items():
        _collect(inner, (*path, step), found)


def shown(path: Path) -> str:
    """.spec.template.spec.containers[name="server"].image, as a conflict names it."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("k:"):
            keys = json.loads(step[2:])
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys.items()) + "]"
        elif step.startswith("v:"):
            text += f"[={step[2:]}]"
    return text
