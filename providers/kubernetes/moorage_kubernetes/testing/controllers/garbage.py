"""What nothing owns any more goes, and so does all that a namespace holds when it does."""

from __future__ import annotations

from collections.abc import Iterable

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.controllers.owners import deleting
from moorage_kubernetes.testing.deletion import FOREGROUND, DeleteOptions, delete
from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import Change, Key, clone
from moorage_kubernetes.testing.world import World


class Garbage:
    """Keys are (what, uid): `gone` an owner, `held` a dependent, `foreground` an owner that waits."""

    def __init__(self, world: World) -> None:
        self._world = world

    def concerned(self, change: Change) -> Iterable[Key]:
        metadata = change.object["metadata"]
        found: list[Key] = []
        if change.kind == "DELETED":
            found.append(("gone", metadata["uid"]))
            found += [("foreground", owner["uid"]) for owner in metadata.get("ownerReferences") or ()]
        elif change.kind == "ADDED" and metadata.get("ownerReferences"):
            found.append(("held", metadata["uid"]))
        if FOREGROUND in metadata.get("finalizers", ()) and deleting(change.object):
            found.append(("foreground", metadata["uid"]))
        return found

    def everything(self) -> Iterable[Key]:
        return []

    def reconcile(self, key: Key) -> None:
        what, uid = key
        match what:
            case "gone":
                for resource, value in list(self._world.store.owned_by(uid)):
                    self._orphaned(resource, value)
            case "held":
                found = self._world.store.by_uid(uid)
                if found is not None:
                    self._orphaned(*found)
            case "foreground":
                self._foreground(uid)

    def _orphaned(self, resource: Resource, value: Json) -> None:
        owners = value["metadata"].get("ownerReferences") or []
        living = [owner for owner in owners if self._world.store.by_uid(owner["uid"]) is not None]
        if not living:
            delete(self._world.objects, resource, value, DeleteOptions())
        elif len(living) < len(owners):
            made = clone(value)
            made["metadata"]["ownerReferences"] = living
            self._world.store.put(resource, made)

    def _foreground(self, uid: str) -> None:
        found = self._world.store.by_uid(uid)
        if found is None or FOREGROUND not in found[1]["metadata"].get("finalizers", ()):
            return
        held = list(self._world.store.owned_by(uid))
        for resource, value in held:
            if not deleting(value):
                delete(self._world.objects, resource, value, DeleteOptions(policy="Foreground"))
        found = self._world.store.by_uid(uid)
        if found is None or list(self._world.store.owned_by(uid)):
            return
        resource, value = found
        made = clone(value)
        made["metadata"]["finalizers"] = [f for f in made["metadata"]["finalizers"] if f != FOREGROUND]
        if not self._world.objects.remove_if_done(resource, made):
            self._world.store.put(resource, made)


class Namespaces:
    """A new namespace gets its service account; one that is deleted is emptied first."""

    def __init__(self, world: World) -> None:
        self._world = world

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.resource == known.NAMESPACES:
            return [("", change.object["metadata"]["name"])]
        namespace = change.object["metadata"].get("namespace")
        return [("", namespace)] if change.kind == "DELETED" and namespace else []

    def everything(self) -> Iterable[Key]:
        return [("", value["metadata"]["name"]) for value in self._world.store.of(known.NAMESPACES)]

    def reconcile(self, key: Key) -> None:
        value = self._world.store.get(known.NAMESPACES, *key)
        if value is None:
            return
        if deleting(value):
            self._empty(value)
        elif self._world.store.get(known.SERVICE_ACCOUNTS, key[1], "default") is None:
            account = {"apiVersion": "v1", "kind": "ServiceAccount"}
            self._world.make(
                known.SERVICE_ACCOUNTS, {**account, "metadata": {"name": "default", "namespace": key[1]}}
            )

    def _empty(self, value: Json) -> None:
        store, name = self._world.store, value["metadata"]["name"]
        left = False
        for resource in store.resources():
            for held in store.of(resource, name) if resource.namespaced else ():
                if not deleting(held):
                    delete(self._world.objects, resource, held, DeleteOptions())
                left = left or store.get(resource, name, held["metadata"]["name"]) is not None
        if not left:
            store.remove(known.NAMESPACES, value)
