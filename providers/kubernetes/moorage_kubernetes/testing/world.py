"""What all parts of the cluster share: the store, the writers, the faults, and cluster time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.admission import Admission
from moorage_kubernetes.testing.clock import now
from moorage_kubernetes.testing.faults import Faults
from moorage_kubernetes.testing.objects import Objects, Write, suffix
from moorage_kubernetes.testing.resources import Catalog, Resource
from moorage_kubernetes.testing.schemas import Schemas
from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import Store, clone


class World:
    """`speed`: how many seconds of the controllers' waits pass in one of ours."""

    def __init__(self, version: str, speed: float) -> None:
        self.version = version
        self.speed = speed
        self.address = ""
        self.store = Store()
        self.faults = Faults()
        self.catalog = Catalog()
        self.admission = Admission(self.store, self.faults)
        self.objects = Objects(self.store, Schemas(version), self.admission)
        self._timers: set[asyncio.TimerHandle] = set()
        self._told: dict[tuple[str, str, str], tuple[str, str]] = {}  # what an event says: its key

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Calls `act` after so many seconds of cluster time."""

        def run() -> None:
            self._timers.discard(handle)
            act()

        handle = asyncio.get_running_loop().call_later(seconds / self.speed, run)
        self._timers.add(handle)

    def close(self) -> None:
        for handle in self._timers:
            handle.cancel()
        self._timers.clear()

    def make(self, resource: Resource, value: Json, manager: str = "kube-controller-manager") -> Json:
        """An object made by the cluster itself, through all that a client's goes through. Raises ApiError."""
        namespace = value["metadata"].get("namespace", "")
        return self.objects.create(resource, namespace, value, Write(manager, "Strict"))

    def set_status(self, resource: Resource, value: Json, status: Json) -> Json:
        """Writes a status; nothing where it is what it was, or where the object is gone."""
        metadata = value["metadata"]
        held = self.store.get(resource, metadata.get("namespace", ""), metadata["name"])
        if held is None or held["metadata"]["uid"] != metadata["uid"] or held.get("status") == status:
            return held or value
        made = clone(held)
        made["status"] = status
        return self.store.put(resource, made)

    def set_replicas(self, resource: Resource, value: Json, replicas: int, manager: str) -> None:
        """Scales through the scale subresource, which takes spec.replicas over."""
        if value["spec"].get("replicas") == replicas:
            return

        def change(held: Json) -> Json:
            held["spec"]["replicas"] = replicas
            return held

        metadata = value["metadata"]
        how = Write(manager, "Strict", subresource="scale")
        self.objects.patch(resource, metadata["namespace"], metadata["name"], change, how)

    def event(
        self, about: Json, reason: str, message: str, *, normal: bool = False, source: str = ""
    ) -> None:
        """Notes an event; the same one again counts up."""
        metadata = about["metadata"]
        namespace = metadata.get("namespace", "default")
        home = self.store.get(known.NAMESPACES, "", namespace)
        if home is None or "deletionTimestamp" in home["metadata"]:
            return  # nothing new comes into a namespace that goes
        told = (metadata["uid"], reason, message)
        held = self.store.get(known.EVENTS, *self._told.get(told, ("", "")))
        moment = now()
        if held is not None:
            again = clone(held)
            again["count"] += 1
            again["lastTimestamp"] = moment
            self.store.put(known.EVENTS, again)
            return
        name = f"{metadata['name']}.{suffix(16)}"
        self._told[told] = (namespace, name)
        self.store.put(
            known.EVENTS,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "uid": str(uuid.uuid4()),
                    "creationTimestamp": moment,
                },
                "involvedObject": {
                    "apiVersion": about["apiVersion"],
                    "kind": about["kind"],
                    "name": metadata["name"],
                    "namespace": metadata.get("namespace", ""),
                    "uid": metadata["uid"],
                    "resourceVersion": metadata["resourceVersion"],
                },
                "reason": reason,
                "message": message,
                "type": "Normal" if normal else "Warning",
                "source": {"component": source},
                "reportingComponent": source,
                "firstTimestamp": moment,
                "lastTimestamp": moment,
                "count": 1,
            },
        )
