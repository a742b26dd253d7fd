"""Owner references, as controllers write and read them."""

from __future__ import annotations

from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import Key


def reference(owner: Json) -> Json:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_key(value: Json, kind: str) -> Key | None:
    """The key of the controller of this kind."""
    for owner in value["metadata"].get("ownerReferences") or ():
        if owner["kind"] == kind and owner.get("controller"):
            return value["metadata"]["namespace"], owner["name"]
    return None


def deleting(value: Json) -> bool:
    return "deletionTimestamp" in value["metadata"]


def condition(kind: str, status: bool, reason: str, message: str, moment: str) -> Json:
    return {
        "type": kind,
        "status": "True" if status else "False",
        "reason": reason,
        "message": message,
        "lastUpdateTime": moment,
        "lastTransitionTime": moment,
    }


def kept(old: list[Json], new: list[Json]) -> list[Json]:
    """`new` conditions, with the times of the old ones where nothing else changed."""
    held = {one["type"]: one for one in old}
    made = []
    for one in new:
        before = held.get(one["type"])
        if before is not None and before["status"] == one["status"]:
            one = {**one, "lastTransitionTime": before["lastTransitionTime"]}
            if (before.get("reason"), before.get("message")) == (one.get("reason"), one.get("message")):
                one = before
        made.append(one)
    return made
