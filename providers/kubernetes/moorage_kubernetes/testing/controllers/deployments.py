"""Deployments: a replica set for each template, rolled over step by step, and conditions that tell of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.clock import now
from moorage_kubernetes.testing.controllers.owners import condition, controller_key, deleting, kept, reference
from moorage_kubernetes.testing.controllers.rollout import Set, bounds, recreating, rolling
from moorage_kubernetes.testing.faults import named
from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import Change, Key, clone, key_of
from moorage_kubernetes.testing.world import World

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"


class Deployments:
    """`again` asks to look at a key once more."""

    def __init__(self, world: World, again: Callable[[Key], None]) -> None:
        self._world = world
        self._again = again
        self._progress: dict[str, tuple[object, float]] = {}  # uid: what was last seen to move, and when

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.resource == known.DEPLOYMENTS:
            return [key_of(change.object)]
        if change.resource == known.REPLICA_SETS:
            owner = controller_key(change.object, "Deployment")
            return [owner] if owner else []
        if change.resource == known.PODS and change.kind == "DELETED":
            return self._recreated(change.object)  # may have been the last that is in the way
        return []

    def _recreated(self, pod: Json) -> list[Key]:
        key = controller_key(pod, "ReplicaSet")
        held = self._world.store.get(known.REPLICA_SETS, *key) if key else None
        owner = controller_key(held, "Deployment") if held else None
        return [owner] if owner else []

    def everything(self) -> Iterable[Key]:
        return [key_of(value) for value in self._world.store.of(known.DEPLOYMENTS)]

    def reconcile(self, key: Key) -> None:
        value = self._world.store.get(known.DEPLOYMENTS, *key)
        if value is None or deleting(value):
            return
        held = [one for _, one in self._world.store.owned_by(value["metadata"]["uid"], known.REPLICA_SETS)]
        current = self._current(value, held)
        old = sorted(
            (one for one in held if one["metadata"]["uid"] != current["metadata"]["uid"]), key=_revision
        )
        self._scale(value, current, old)
        self._forget(value, old)
        self._tell(value)

    def _current(self, value: Json, held: list[Json]) -> Json:
        """The replica set of the template as it is now; made where there is none."""
        latest = max((_revision(one) for one in held), default=0)
        for one in held:
            if _template(one) == value["spec"]["template"]:
                if _revision(one) < latest or not _revision(one):
                    one = self._marked(one, latest + 1)
                self._note_revision(value, _revision(one))
                return one
        made = self._world.make(known.REPLICA_SETS, self._set_of(value, latest + 1))
        self._note_revision(value, latest + 1)
        message = f"Scaled up replica set {made['metadata']['name']} from 0 to {value['spec']['replicas']}"
        self._event(value, "ScalingReplicaSet", message)
        return made

    def _set_of(self, value: Json, revision: int) -> Json:
        template = clone(value["spec"]["template"])
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        template.setdefault("metadata", {}).setdefault("labels", {})[HASH] = digest
        selector = clone(value["spec"]["selector"])
        selector.setdefault("matchLabels", {})[HASH] = digest
        spec: Json = {"replicas": 0, "selector": selector, "template": template}
        if value["spec"].get("minReadySeconds"):
            spec["minReadySeconds"] = value["spec"]["minReadySeconds"]
        metadata = value["metadata"]
        return {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{metadata['name'][:240]}-{digest}",
                "namespace": metadata["namespace"],
                "labels": dict(template["metadata"]["labels"]),
                "annotations": {REVISION: str(revision)},
                "ownerReferences": [reference(value)],
            },
            "spec": spec,
        }

    def _marked(self, held: Json, revision: int) -> Json:
        made = clone(held)
        made["metadata"].setdefault("annotations", {})[REVISION] = str(revision)
        return self._world.store.put(known.REPLICA_SETS, made)

    def _note_revision(self, value: Json, revision: int) -> None:
        if (value["metadata"].get("annotations") or {}).get(REVISION) != str(revision):
            made = clone(self._world.store.get(known.DEPLOYMENTS, *key_of(value)) or value)
            made["metadata"].setdefault("annotations", {})[REVISION] = str(revision)
            self._world.store.put(known.DEPLOYMENTS, made)

    def _scale(self, value: Json, current: Json, old: list[Json]) -> None:
        spec = value["spec"]
        desired = spec["replicas"]
        new, others = self._seen(current), [self._seen(one) for one in old]
        if spec.get("paused") and others and any(one.asked for one in others):
            return
        if spec["strategy"]["type"] == "Recreate":
            wanted = recreating(desired, new, others)
        else:
            rules = spec["strategy"]["rollingUpdate"]
            limits = bounds(rules["maxSurge"], rules["maxUnavailable"], desired)
            wanted = rolling(desired, new, others, *limits)
        for one in (current, *old):
            replicas = wanted[one["metadata"]["name"]]
            if one["spec"]["replicas"] != replicas:
                made = clone(one)
                made["spec"]["replicas"] = replicas
                made["metadata"]["generation"] += 1
                self._world.store.put(known.REPLICA_SETS, made)

    def _seen(self, one: Json) -> Set:
        status = one.get("status") or {}
        pods = list(self._world.store.owned_by(one["metadata"]["uid"], known.PODS))
        return Set(
            one["metadata"]["name"], one["spec"]["replicas"], len(pods), status.get("availableReplicas", 0)
        )

    def _forget(self, value: Json, old: list[Json]) -> None:
        idle = [
            one
            for one in old
            if not one["spec"]["replicas"] and not (one.get("status") or {}).get("replicas")
        ]
        for one in idle[: max(0, len(idle) - value["spec"]["revisionHistoryLimit"])]:
            self._world.store.remove(known.REPLICA_SETS, one)

    def _tell(self, value: Json) -> None:
        """Writes the status."""
        world = self._world
        value = world.store.get(known.DEPLOYMENTS, *key_of(value)) or value
        sets = [one for _, one in world.store.owned_by(value["metadata"]["uid"], known.REPLICA_SETS)]
        new = next((one for one in sets if _template(one) == value["spec"]["template"]), None)
        if new is None:
            return
        counts = {
            name: sum((one.get("status") or {}).get(name, 0) for one in sets)
            for name in ("replicas", "readyReplicas", "availableReplicas")
        }
        counts["updatedReplicas"] = (new.get("status") or {}).get("replicas", 0)
        desired = value["spec"]["replicas"]
        counts["unavailableReplicas"] = max(0, max(desired, counts["replicas"]) - counts["availableReplicas"])
        status: Json = {"observedGeneration": value["metadata"]["generation"]}
        status |= {name: count for name, count in counts.items() if count}
        old = (value.get("status") or {}).get("conditions") or []
        conditions = [self._available(value, counts["availableReplicas"])]
        conditions += [self._progressing(value, new, counts)]
        conditions += [
            one
            for one in (new.get("status") or {}).get("conditions") or ()
            if one["type"] == "ReplicaFailure"
        ]
        status["conditions"] = kept(old, conditions)
        world.set_status(known.DEPLOYMENTS, value, status)

    def _available(self, value: Json, available: int) -> Json:
        desired = value["spec"]["replicas"]
        unavailable = 0
        if value["spec"]["strategy"]["type"] == "RollingUpdate":
            rules = value["spec"]["strategy"]["rollingUpdate"]
            unavailable = bounds(rules["maxSurge"], rules["maxUnavailable"], desired)[1]
        if available >= desired - unavailable:
            message = "Deployment has minimum availability."
            return condition("Available", True, "MinimumReplicasAvailable", message, now())
        message = "Deployment does not have minimum availability."
        return condition("Available", False, "MinimumReplicasUnavailable", message, now())

    def _progressing(self, value: Json, new: Json, counts: dict[str, int]) -> Json:
        name, uid = new["metadata"]["name"], value["metadata"]["uid"]
        desired = value["spec"]["replicas"]
        complete = counts["updatedReplicas"] == counts["replicas"] == counts["availableReplicas"] == desired
        before = _condition(value, "Progressing")
        told = f'ReplicaSet "{name}"'
        finished = before.get("reason") == "NewReplicaSetAvailable" and told in before["message"]
        if complete or finished:
            self._progress.pop(uid, None)
            message = f"{told} has successfully progressed."
            return condition("Progressing", True, "NewReplicaSetAvailable", message, now())
        if self._late(value, (name, tuple(sorted(counts.items())))):
            message = f"{told} has timed out progressing."
            return condition("Progressing", False, "ProgressDeadlineExceeded", message, now())
        message = f"{told} is progressing."
        return condition("Progressing", True, "ReplicaSetUpdated", message, now())

    def _late(self, value: Json, seen: object) -> bool:
        metadata = value["metadata"]
        if named(self._world.faults.progress_deadline, metadata["name"], "/".join(key_of(value))):
            return True
        moment = asyncio.get_running_loop().time()
        last, since = self._progress.get(metadata["uid"], (None, moment))
        seconds = value["spec"]["progressDeadlineSeconds"]
        if last != seen:
            self._progress[metadata["uid"]] = (seen, moment)
            key = key_of(value)
            self._world.later((seconds + 0.01) * self._world.speed, lambda: self._again(key))
            return False
        return bool(moment - since >= seconds)  # a deadline is of real time: only its own test waits for one

    def _event(self, value: Json, reason: str, message: str) -> None:
        self._world.event(value, reason, message, normal=True, source="deployment-controller")


def _revision(held: Json) -> int:
    return int((held["metadata"].get("annotations") or {}).get(REVISION, 0))


def _template(held: Json) -> Json:
    template = clone(held["spec"]["template"])
    template.get("metadata", {}).get("labels", {}).pop(HASH, None)
    return template


def _condition(value: Json, kind: str) -> Json:
    for one in (value.get("status") or {}).get("conditions") or ():
        if one["type"] == kind:
            found: Json = one
            return found
    return {}
