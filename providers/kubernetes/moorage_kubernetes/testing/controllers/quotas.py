"""The used side of resource quotas, for those who read it."""

from __future__ import annotations

from collections.abc import Iterable

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.quantities import shown
from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import Change, Key, key_of
from moorage_kubernetes.testing.world import World


class Quotas:
    def __init__(self, world: World) -> None:
        self._world = world

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.resource == known.EVENTS or not change.resource.namespaced:
            return []
        if change.resource != known.QUOTAS and change.kind == "MODIFIED" and change.resource != known.PODS:
            return []
        held = self._world.store.of(known.QUOTAS, change.object["metadata"]["namespace"])
        return [key_of(value) for value in held]

    def everything(self) -> Iterable[Key]:
        return [key_of(value) for value in self._world.store.of(known.QUOTAS)]

    def reconcile(self, key: Key) -> None:
        value = self._world.store.get(known.QUOTAS, *key)
        if value is None:
            return
        used: Json = {}
        for name, amount in self._world.admission.used(value).items():
            used[name] = shown(amount, "bytes" if name.endswith(("memory", "storage")) else "")
        status = {"hard": value["spec"].get("hard") or {}, "used": used}
        self._world.set_status(known.QUOTAS, value, status)
