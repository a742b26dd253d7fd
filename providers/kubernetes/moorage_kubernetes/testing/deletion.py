"""Deleting: at once, gracefully, in the foreground, or leaving what the object owns."""

from __future__ import annotations

from dataclasses import dataclass

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.clock import now
from moorage_kubernetes.testing.objects import Objects
from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.statuses import ApiError, Json, precondition
from moorage_kubernetes.testing.store import clone

FOREGROUND = "foregroundDeletion"
_ANSWERED_WITH_OBJECT = frozenset(
    {
        known.PODS,
        known.SERVICES,
        known.CLAIMS,
        known.VOLUMES,
        known.QUOTAS,
        known.SERVICE_ACCOUNTS,
        known.STORAGE_CLASSES,
    }
)


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """`policy` is Background, Foreground or Orphan; `grace` in seconds; `uid` and `revision` must be met."""

    policy: str = "Background"
    grace: int | None = None
    uid: str | None = None
    revision: str | None = None
    dry_run: bool = False


def delete(objects: Objects, resource: Resource, value: Json, options: DeleteOptions) -> Json:
    """The answer to the request. Raises ApiError 409 or 422."""
    _check(resource, value, options)
    if not options.dry_run:
        value = _delete(objects, resource, value, options)
    if resource in _ANSWERED_WITH_OBJECT or "deletionTimestamp" in value["metadata"]:
        return value
    metadata = value["metadata"]
    details = {"name": metadata["name"], "kind": resource.plural, "uid": metadata["uid"]}
    if resource.group:
        details["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _check(resource: Resource, value: Json, options: DeleteOptions) -> None:
    metadata = value["metadata"]
    about = (resource.plural, resource.group, metadata["name"])
    if options.policy not in ("Background", "Foreground", "Orphan"):
        raise ApiError(422, "Invalid", f"propagationPolicy: Invalid value: {options.policy}")
    if options.uid not in (None, metadata["uid"]):
        raise precondition(*about, "UID", str(options.uid), metadata["uid"])
    if options.revision not in (None, metadata["resourceVersion"]):
        raise precondition(*about, "ResourceVersion", str(options.revision), metadata["resourceVersion"])


def _delete(objects: Objects, resource: Resource, value: Json, options: DeleteOptions) -> Json:
    value = clone(value)
    metadata = value["metadata"]
    if options.policy == "Orphan":
        _orphan(objects, metadata["uid"])
    if options.policy == "Foreground" and FOREGROUND not in metadata.get("finalizers", ()):
        metadata["finalizers"] = [*metadata.get("finalizers", ()), FOREGROUND]
    grace = _grace(resource, value, options)
    waits = bool(metadata.get("finalizers")) or grace > 0 or resource == known.NAMESPACES
    if not waits:
        return objects.store.remove(resource, objects.get(resource, *_key(value)))
    if "deletionTimestamp" in metadata and metadata.get("deletionGracePeriodSeconds", 0) <= grace:
        if metadata.get("finalizers") == objects.get(resource, *_key(value))["metadata"].get("finalizers"):
            return value
    else:
        metadata["deletionTimestamp"] = now()
        metadata["deletionGracePeriodSeconds"] = grace
    if "generation" in metadata:
        metadata["generation"] += 1
    if resource == known.NAMESPACES:
        value["status"] = {"phase": "Terminating"}
    return objects.store.put(resource, value)


def _key(value: Json) -> tuple[str, str]:
    return value["metadata"].get("namespace", ""), value["metadata"]["name"]


def _grace(resource: Resource, value: Json, options: DeleteOptions) -> int:
    """Seconds that a kubelet has; 0 for what no kubelet runs."""
    if resource != known.PODS or "nodeName" not in value["spec"]:
        return 0
    if value.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = options.grace
    return int(value["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked)


def _orphan(objects: Objects, uid: str) -> None:
    for resource, held in list(objects.store.owned_by(uid)):
        freed = clone(held)
        freed["metadata"]["ownerReferences"] = [
            one for one in freed["metadata"]["ownerReferences"] if one["uid"] != uid
        ]
        objects.store.put(resource, freed)
