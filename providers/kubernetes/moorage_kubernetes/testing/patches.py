"""The three kinds of patch beside apply: JSON patch, merge patch, strategic merge patch."""

from __future__ import annotations

from typing import Any

from moorage_kubernetes.testing.schemas import Schemas
from moorage_kubernetes.testing.statuses import ApiError, Json, bad_request
from moorage_kubernetes.testing.store import clone


def merge_patch(target: Any, patch: Any) -> Any:  # Any: JSON
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    made = dict(target) if isinstance(target, dict) else {}
    for name, inner in patch.items():
        if inner is None:
            made.pop(name, None)
        else:
            made[name] = merge_patch(made.get(name), inner)
    return made


def strategic_merge(schemas: Schemas, node: Json, target: Any, patch: Any) -> Any:  # Any: JSON
    """A merge patch that unites lists by the merge key of the schema; `$patch` deletes or replaces."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: inner for name, inner in patch.items() if name != "$patch"}
    made = dict(target) if isinstance(target, dict) else {}
    for name, inner in patch.items():
        if name.startswith("$setElementOrder/") or name == "$patch":
            continue
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            made[field] = [one for one in made.get(field, ()) if one not in inner]
            continue
        child = schemas.child(node, name) or {}
        if inner is None:
            made.pop(name, None)
        elif isinstance(inner, list):
            made[name] = _strategic_list(schemas, _declared(schemas, node, name), made.get(name), inner)
        else:
            made[name] = strategic_merge(schemas, child, made.get(name), inner)
    return made


def _declared(schemas: Schemas, node: Json, name: str) -> Json:
    """The field as its holder declares it: that is where the strategy is written."""
    found: Json = (schemas.resolve(node).get("properties") or {}).get(name) or {}
    return found


def _strategic_list(schemas: Schemas, node: Json, target: Any, patch: list[Any]) -> list[Any]:
    if "merge" not in str(node.get("x-kubernetes-patch-strategy", "")):
        return patch
    old = list(target or ())
    key = node.get("x-kubernetes-patch-merge-key")
    if key is None:
        return old + [one for one in patch if one not in old]
    if any(one.get("$patch") == "replace" for one in patch):
        return [one for one in patch if "$patch" not in one]
    item = schemas.item(node)
    for one in patch:
        if key not in one:
            raise bad_request(f"map: {one} does not contain declared merge key: {key}")
        place = next((index for index, held in enumerate(old) if held.get(key) == one[key]), None)
        if one.get("$patch") == "delete":
            old = [held for held in old if held.get(key) != one[key]]
        elif place is None:
            old.append(strategic_merge(schemas, item, {}, one))
        else:
            old[place] = strategic_merge(schemas, item, old[place], one)
    return old


def json_patch(target: Json, operations: Any) -> Json:  # Any: JSON of a client
    """RFC 6902. Raises ApiError 400 for what is no patch, 422 for one that does not apply."""
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    document: Any = clone(target)
    for operation in operations:
        try:
            document = _operate(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            message = f"the server rejected our request due to an error in our request: {error}"
            raise ApiError(422, "Invalid", message) from error
    made: Json = document
    return made


def _operate(document: Any, operation: Json) -> Any:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "add":
            return _add(document, path, operation["value"])
        case "remove":
            return _take(document, path)[0]
        case "replace":
            _get(document, path)
            return _set(document, path, operation["value"])
        case "move":
            document, taken = _take(document, _pointer(operation["from"]))
            return _add(document, path, taken)
        case "copy":
            return _add(document, path, _get(document, _pointer(operation["from"])))
        case "test":
            if _get(document, path) != operation["value"]:
                raise ValueError(f"testing value {operation['path']} failed: test failed")
            return document
    raise ValueError(f"unexpected kind: {operation['op']}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"{text} is no JSON pointer")
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def _get(document: Any, path: list[str]) -> Any:
    for step in path:
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document


def _set(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    holder = _get(document, path[:-1])
    if isinstance(holder, list):
        holder[int(path[-1])] = value
    else:
        holder[path[-1]] = value
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    holder = _get(document, path[:-1]) if path else None
    if isinstance(holder, list):
        holder.insert(len(holder) if path[-1] == "-" else int(path[-1]), value)
        return document
    return _set(document, path, value)


def _take(document: Any, path: list[str]) -> tuple[Any, Any]:
    holder = _get(document, path[:-1])
    return document, holder.pop(int(path[-1]) if isinstance(holder, list) else path[-1])
