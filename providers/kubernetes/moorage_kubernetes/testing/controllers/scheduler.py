"""Gives pods their nodes, and says why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.clock import now
from moorage_kubernetes.testing.controllers.fitting import asked, choose, unschedulable
from moorage_kubernetes.testing.controllers.owners import deleting
from moorage_kubernetes.testing.faults import hits
from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import Change, Key, clone, key_of
from moorage_kubernetes.testing.world import World


class Scheduler:
    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: dict[Key, None] = {}
        self._placed: dict[str, tuple[str, dict[str, Fraction]]] = {}  # uid: its node, what it holds there
        self._used: dict[str, dict[str, Fraction]] = {}  # by node

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.resource == known.PODS:
            freed = self._count(change)
            own = [] if change.object["spec"].get("nodeName") else [key_of(change.object)]
            return [*own, *self._waiting] if freed else own
        if change.resource in (known.NODES, known.CLAIMS):
            return list(self._waiting)
        return []

    def everything(self) -> Iterable[Key]:
        return list(self._waiting)

    def reconcile(self, key: Key) -> None:
        pod = self._world.store.get(known.PODS, *key)
        if pod is None or deleting(pod) or pod["spec"].get("nodeName"):
            self._waiting.pop(key, None)
            return
        self._waiting[key] = None
        if hits(self._world.faults.never_scheduled, pod):
            return
        nodes = self._world.store.of(known.NODES)
        if hits(self._world.faults.unschedulable, pod):
            self._refuse(pod, unschedulable(len(nodes)))
            return
        missing = self._unbound(pod, len(nodes))
        if missing:
            self._refuse(pod, missing)
            return
        choice = choose(pod, nodes, self._used)
        if choice.node is None:
            self._refuse(pod, choice.message)
        else:
            self._bind(pod, choice.node)

    def _count(self, change: Change) -> bool:
        """Keeps the sum of what pods hold; whether something was given free."""
        pod = change.object
        uid = pod["metadata"]["uid"]
        node = pod["spec"].get("nodeName")
        ended = change.kind == "DELETED" or pod.get("status", {}).get("phase") in ("Failed", "Succeeded")
        if ended and uid in self._placed:
            held, amounts = self._placed.pop(uid)
            for name, amount in amounts.items():
                self._used[held][name] -= amount
            return True
        if node and not ended and uid not in self._placed:
            amounts = asked(pod)
            self._placed[uid] = (node, amounts)
            used = self._used.setdefault(node, {})
            for name, amount in amounts.items():
                used[name] = used.get(name, Fraction(0)) + amount
        return False

    def _unbound(self, pod: Json, nodes: int) -> str:
        """Why the pod's claims keep it from any node; "" where they do not."""
        for volume in pod["spec"].get("volumes") or ():
            if "persistentVolumeClaim" not in volume:
                continue
            name = volume["persistentVolumeClaim"]["claimName"]
            claim = self._world.store.get(known.CLAIMS, pod["metadata"]["namespace"], name)
            if claim is None or deleting(claim):
                gone = "not found" if claim is None else "is being deleted"
                return f'0/{nodes} nodes are available: persistentvolumeclaim "{name}" {gone}.'
            kind = self._world.store.get(known.STORAGE_CLASSES, "", claim["spec"].get("storageClassName", ""))
            late = kind is not None and kind.get("volumeBindingMode") == "WaitForFirstConsumer"
            if claim["status"]["phase"] != "Bound" and not late:
                return (
                    f"0/{nodes} nodes are available: pod has unbound immediate PersistentVolumeClaims. "
                    f"preemption: 0/{nodes} nodes are available: "
                    f"{nodes} Preemption is not helpful for scheduling."
                )
        return ""

    def _refuse(self, pod: Json, message: str) -> None:
        self._world.event(pod, "FailedScheduling", message, source="default-scheduler")
        refusal = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": now(),
        }
        held = (pod.get("status") or {}).get("conditions") or []
        if held and held[0].get("message") == message:
            return
        self._world.set_status(known.PODS, pod, {**pod["status"], "conditions": [refusal]})

    def _bind(self, pod: Json, node: str) -> None:
        self._waiting.pop(key_of(pod), None)
        made = clone(pod)
        made["spec"]["nodeName"] = node
        made["status"]["conditions"] = [
            {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now()}
        ]
        self._world.store.put(known.PODS, made)
        metadata = pod["metadata"]
        message = f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {node}"
        self._world.event(pod, "Scheduled", message, normal=True, source="default-scheduler")
