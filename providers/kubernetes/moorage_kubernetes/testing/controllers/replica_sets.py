"""Replica sets: as many pods as asked for, and why where they cannot be made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.clock import now
from moorage_kubernetes.testing.controllers.owners import condition, controller_key, deleting, kept, reference
from moorage_kubernetes.testing.deletion import DeleteOptions, delete
from moorage_kubernetes.testing.objects import suffix
from moorage_kubernetes.testing.proxy import ready
from moorage_kubernetes.testing.statuses import ApiError, Json
from moorage_kubernetes.testing.store import Change, Key, clone, key_of
from moorage_kubernetes.testing.world import World

_ROOM = (known.QUOTAS, known.LIMIT_RANGES, known.NAMESPACES, known.PODS)


class ReplicaSets:
    """`again` asks to look at a key once more."""

    def __init__(self, world: World, again: Callable[[Key], None]) -> None:
        self._world = world
        self._again = again
        self._failed: dict[Key, str] = {}  # why the last pod could not be made
        self._ready_since: dict[str, float] = {}

    def concerned(self, change: Change) -> Iterable[Key]:
        found: list[Key] = []
        if change.resource == known.REPLICA_SETS:
            found.append(key_of(change.object))
        if change.resource == known.PODS:
            owner = controller_key(change.object, "ReplicaSet")
            found += [owner] if owner else []
        if change.resource in _ROOM and (change.kind == "DELETED" or change.resource != known.PODS):
            found += self._failed  # there may be room now
        return found

    def everything(self) -> Iterable[Key]:
        return [key_of(value) for value in self._world.store.of(known.REPLICA_SETS)]

    def reconcile(self, key: Key) -> None:
        value = self._world.store.get(known.REPLICA_SETS, *key)
        if value is None or deleting(value):
            self._failed.pop(key, None)
            return
        pods = self._pods(value)
        missing = value["spec"]["replicas"] - len(pods)
        if missing > 0:
            self._create(value, missing)
        else:
            self._failed.pop(key, None)
            for pod in sorted(pods, key=_worth)[: -missing or None] if missing else ():
                delete(self._world.objects, known.PODS, pod, DeleteOptions())
        self._tell(value)

    def _pods(self, value: Json) -> list[Json]:
        return [
            pod
            for _, pod in self._world.store.owned_by(value["metadata"]["uid"], known.PODS)
            if not deleting(pod) and pod.get("status", {}).get("phase") not in ("Failed", "Succeeded")
        ]

    def _create(self, value: Json, count: int) -> None:
        template, metadata = value["spec"]["template"], value["metadata"]
        for _ in range(count):
            pod = clone(template)
            own = pod.setdefault("metadata", {})
            own["name"] = f"{metadata['name'][:57]}-{suffix()}"
            own["namespace"] = metadata["namespace"]
            own["ownerReferences"] = [reference(value)]
            pod |= {"apiVersion": "v1", "kind": "Pod"}
            try:
                made = self._world.make(known.PODS, pod)
            except ApiError as error:
                self._failed[key_of(value)] = error.message
                self._event(value, "FailedCreate", f"Error creating: {error.message}", normal=False)
                return
            self._failed.pop(key_of(value), None)
            self._event(value, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")

    def _tell(self, value: Json) -> None:
        """Writes the status."""
        pods = self._pods(value)
        least = value["spec"].get("minReadySeconds", 0)
        status: Json = {
            "observedGeneration": value["metadata"]["generation"],
            "replicas": len(pods),
            "fullyLabeledReplicas": len(pods),
            "readyReplicas": sum(ready(pod) for pod in pods),
            "availableReplicas": sum(self._available(pod, least, key_of(value)) for pod in pods),
        }
        status = {name: count for name, count in status.items() if count or name == "replicas"}
        failure = self._failed.get(key_of(value))
        if failure is not None:
            new = [condition("ReplicaFailure", True, "FailedCreate", failure, now())]
            status["conditions"] = kept((value.get("status") or {}).get("conditions") or [], new)
        self._world.set_status(known.REPLICA_SETS, value, status)

    def _available(self, pod: Json, least: int, key: Key) -> bool:
        uid = pod["metadata"]["uid"]
        if not ready(pod):
            self._ready_since.pop(uid, None)
            return False
        if not least:
            return True
        moment = asyncio.get_running_loop().time()
        if uid not in self._ready_since:
            self._ready_since[uid] = moment
            self._world.later(least, lambda: self._again(key))
        return (moment - self._ready_since[uid]) * self._world.speed >= least

    def _event(self, value: Json, reason: str, message: str, *, normal: bool = True) -> None:
        self._world.event(value, reason, message, normal=normal, source="replicaset-controller")


def _worth(pod: Json) -> tuple[bool, bool, str]:
    """Those that serve least go first, of those the youngest."""
    return "nodeName" in pod["spec"], ready(pod), pod["metadata"]["creationTimestamp"]
