"""HorizontalPodAutoscalers and KEDA's scaled objects: replicas between bounds, to zero and back.

What metrics would say, a test says: `recommend` for the number, `set_active` for whether there is work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.clock import now
from moorage_kubernetes.testing.controllers.owners import condition, deleting, kept, reference
from moorage_kubernetes.testing.faults import named
from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import Change, Key, key_of
from moorage_kubernetes.testing.world import World

_PREFIX = "autoscaling.keda.sh/"
_SCALERS = (known.HPAS, known.SCALED_OBJECTS)


class Autoscaling:
    """Keys are (plural/namespace, name). `again` asks to look at a key once more."""

    def __init__(self, world: World, again: Callable[[Key], None]) -> None:
        self._world = world
        self._again = again
        self._wanted: dict[Key, int] = {}
        self._active: dict[Key, bool] = {}
        self._idle_since: dict[str, float] = {}
        self._scalers: dict[Key, set[Key]] = {}  # by what they scale

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.resource in _SCALERS:
            key = _key(change.resource, change.object)
            target = change.object["metadata"]["namespace"], change.object["spec"]["scaleTargetRef"]["name"]
            self._scalers.setdefault(target, set()).add(key)  # one that is gone is looked for in vain
            return [key]
        if change.resource == known.DEPLOYMENTS:
            return sorted(self._scalers.get(key_of(change.object), ()))
        return []

    def everything(self) -> Iterable[Key]:
        return [_key(resource, value) for resource in _SCALERS for value in self._world.store.of(resource)]

    def set_active(self, name: str, active: bool, namespace: str | None) -> None:
        for value in self._world.store.of(known.SCALED_OBJECTS, namespace):
            if named([name], value["metadata"]["name"]):
                self._active[_key(known.SCALED_OBJECTS, value)] = active
                self._again(_key(known.SCALED_OBJECTS, value))

    def recommend(self, name: str, replicas: int, namespace: str | None) -> None:
        for key in self.everything():
            if key[1] in (name, f"keda-hpa-{name}") and namespace in (None, key[0].partition("/")[2]):
                self._wanted[key] = replicas
                self._again(key)

    def reconcile(self, key: Key) -> None:
        plural, _, namespace = key[0].partition("/")
        if plural == known.HPAS.plural:
            value = self._world.store.get(known.HPAS, namespace, key[1])
            if value is not None and not deleting(value):
                self._horizontal(key, value)
            return
        value = self._world.store.get(known.SCALED_OBJECTS, namespace, key[1])
        if value is None:
            self._active.pop(key, None)
        elif not deleting(value):
            self._scaled(key, value)

    def _target(self, value: Json) -> Json | None:
        wanted = value["spec"]["scaleTargetRef"]
        if wanted.get("kind", "Deployment") != "Deployment":
            return None
        return self._world.store.get(known.DEPLOYMENTS, value["metadata"]["namespace"], wanted["name"])

    def _horizontal(self, key: Key, value: Json) -> None:
        target, spec = self._target(value), value["spec"]
        before = value.get("status") or {}
        if target is None:
            told = f'deployments.apps "{spec["scaleTargetRef"]["name"]}" not found'
            conditions = [condition("AbleToScale", False, "FailedGetScale", told, now())]
            self._conditions(known.HPAS, value, {**before, "desiredReplicas": 0}, conditions)
            return
        current = target["spec"]["replicas"]
        able = condition(
            "AbleToScale", True, "ReadyForNewScale", "recommended size matches current size", now()
        )
        if current == 0:
            told = "scaling is disabled since the replica count of the target is zero"
            conditions = [able, condition("ScalingActive", False, "ScalingDisabled", told, now())]
            counts = {"currentReplicas": 0, "desiredReplicas": 0}
            self._conditions(known.HPAS, value, {**before, **counts}, conditions)
            return
        wanted = self._wanted.get(key, current)
        desired = max(spec["minReplicas"], min(spec["maxReplicas"], wanted))
        limited = "TooManyReplicas" if wanted > desired else "TooFewReplicas"
        conditions = [
            able,
            condition("ScalingActive", True, "ValidMetricFound", "the HPA was able to compute", now()),
            condition(
                "ScalingLimited",
                wanted != desired,
                limited if wanted != desired else "DesiredWithinRange",
                "",
                now(),
            ),
        ]
        counts = {"currentReplicas": current, "desiredReplicas": desired}
        if value["metadata"].get("generation"):
            counts["observedGeneration"] = value["metadata"]["generation"]
        self._conditions(known.HPAS, value, {**before, **counts}, conditions)
        if desired != current:
            self._world.set_replicas(known.DEPLOYMENTS, target, desired, "kube-controller-manager")
            told = f"New size: {desired}; reason: what the metrics call for"
            self._world.event(
                value, "SuccessfulRescale", told, normal=True, source="horizontal-pod-autoscaler"
            )

    def _scaled(self, key: Key, value: Json) -> None:
        spec, marks = value["spec"], value["metadata"].get("annotations") or {}
        target = self._target(value)
        before = {"originalReplicaCount": 1, **(value.get("status") or {})}
        if target is None:
            told = f'deployments.apps "{spec["scaleTargetRef"]["name"]}" not found'
            conditions = [condition("Ready", False, "ScaledObjectCheckFailed", told, now())]
            self._conditions(known.SCALED_OBJECTS, value, before, conditions)
            return
        if "originalReplicaCount" not in (value.get("status") or {}):
            before["originalReplicaCount"] = target["spec"]["replicas"]
        paused = marks.get(f"{_PREFIX}paused") == "true" or f"{_PREFIX}paused-replicas" in marks
        active = self._active.get(key, False) or marks.get(f"{_PREFIX}force-activation") == "true"
        if paused:
            self._pause(value, target, marks)
        else:
            self._within(value, target, active, marks)
        told = "ScaledObject is defined correctly and is ready for scaling"
        conditions = [
            condition("Ready", True, "ScaledObjectReady", told, now()),
            condition(
                "Active",
                active,
                "ScalerActive" if active else "ScalerNotActive",
                "Scaling is performed" if active else "Scaling is not performed",
                now(),
            ),
            condition("Fallback", False, "NoFallbackFound", "No fallbacks are active", now()),
            condition(
                "Paused", paused, "ScaledObjectPaused" if paused else "ScaledObjectUnpaused", "", now()
            ),
        ]
        status: Json = {**before, "hpaName": _hpa_name(value), "scaleTargetKind": "apps/v1.Deployment"}
        if active and not _active(value):
            status["lastActiveTime"] = now()
        if paused:
            status["pausedReplicaCount"] = int(
                marks.get(f"{_PREFIX}paused-replicas", target["spec"]["replicas"])
            )
        else:
            status.pop("pausedReplicaCount", None)
        self._conditions(known.SCALED_OBJECTS, value, status, conditions)

    def _pause(self, value: Json, target: Json, marks: Json) -> None:
        hpa = self._world.store.get(known.HPAS, value["metadata"]["namespace"], _hpa_name(value))
        if hpa is not None:
            self._world.store.remove(known.HPAS, hpa)
        if f"{_PREFIX}paused-replicas" in marks:
            self._world.set_replicas(
                known.DEPLOYMENTS, target, int(marks[f"{_PREFIX}paused-replicas"]), "keda"
            )

    def _within(self, value: Json, target: Json, active: bool, marks: Json) -> None:
        """From zero and to it; between them the autoscaler that belongs to the object decides."""
        spec, uid = value["spec"], value["metadata"]["uid"]
        least, most = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", 100)
        idle = spec.get("idleReplicaCount", least if least == 0 else None)
        replicas = target["spec"]["replicas"]
        self._autoscaler(value, max(1, least), most)
        if active:
            self._idle_since.pop(uid, None)
            if replicas < max(1, least) and marks.get(f"{_PREFIX}paused-scale-out") != "true":
                self._world.set_replicas(known.DEPLOYMENTS, target, max(1, least), "keda")
                told = f"Scaled apps/v1.Deployment from {replicas} to {max(1, least)}"
                self._world.event(
                    value, "KEDAScaleTargetActivated", told, normal=True, source="keda-operator"
                )
            return
        if idle is None:
            if replicas < least:
                self._world.set_replicas(known.DEPLOYMENTS, target, least, "keda")
            return
        if replicas > idle and marks.get(f"{_PREFIX}paused-scale-in") != "true":
            self._cool_down(value, target, idle)

    def _cool_down(self, value: Json, target: Json, idle: int) -> None:
        spec, uid = value["spec"], value["metadata"]["uid"]
        ever = "lastActiveTime" in (value.get("status") or {})
        wait = spec.get("cooldownPeriod", 300) if ever else spec.get("initialCooldownPeriod", 0)
        moment = asyncio.get_running_loop().time()
        if uid not in self._idle_since:
            self._idle_since[uid] = moment
            if wait:
                key = _key(known.SCALED_OBJECTS, value)
                self._world.later(wait, lambda: self._again(key))
        if (moment - self._idle_since[uid]) * self._world.speed < wait:
            return
        del self._idle_since[uid]
        told = f"Deactivated apps/v1.Deployment from {target['spec']['replicas']} to {idle}"
        self._world.set_replicas(known.DEPLOYMENTS, target, idle, "keda")
        self._world.event(value, "KEDAScaleTargetDeactivated", told, normal=True, source="keda-operator")

    def _autoscaler(self, value: Json, least: int, most: int) -> None:
        """KEDA leaves the work between one and many to an HPA of its own."""
        namespace, name = value["metadata"]["namespace"], _hpa_name(value)
        metric = {"metric": {"name": "s0"}, "target": {"type": "AverageValue", "averageValue": "1"}}
        spec: Json = {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": value["spec"]["scaleTargetRef"]["name"],
            },
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [{"type": "External", "external": metric}],
        }
        held = self._world.store.get(known.HPAS, namespace, name)
        if held is not None and held["spec"] == spec:
            return
        if held is not None:
            self._world.store.put(known.HPAS, {**held, "metadata": dict(held["metadata"]), "spec": spec})
            return
        metadata = {"name": name, "namespace": namespace, "ownerReferences": [reference(value)]}
        whole = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
        self._world.make(known.HPAS, {**whole, "metadata": metadata, "spec": spec}, "keda")

    def _conditions(self, resource: Resource, value: Json, status: Json, conditions: list[Json]) -> None:
        for one in conditions:
            one.pop("lastUpdateTime")
            if resource == known.SCALED_OBJECTS:
                one.pop("lastTransitionTime")
        before = (value.get("status") or {}).get("conditions") or []
        if resource == known.HPAS:
            conditions = kept(before, conditions)
        self._world.set_status(resource, value, {**status, "conditions": conditions})


def _key(resource: Resource, value: Json) -> Key:
    namespace, name = key_of(value)
    return f"{resource.plural}/{namespace}", name


def _active(value: Json) -> bool:
    conditions = (value.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Active" and one["status"] == "True" for one in conditions)


def _hpa_name(value: Json) -> str:
    advanced = (value["spec"].get("advanced") or {}).get("horizontalPodAutoscalerConfig") or {}
    return str(advanced.get("name") or f"keda-hpa-{value['metadata']['name']}")
