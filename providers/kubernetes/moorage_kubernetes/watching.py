"""What a cluster shows of our endpoints without being asked: one shared copy of Deployments and pods for each
cluster, and the names of what changed.

The copy lives as long as somebody watches. An endpoint that was just written, or that is being deleted, is
not answered for from the copy, which may be a moment behind.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Any  # Kubernetes objects as they are read

from moorage_kubernetes import marks
from moorage_kubernetes.applying import Objects
from moorage_kubernetes.informer import Informer, Key, Object, key_of
from moorage_kubernetes.kinds import DEPLOYMENT, POD


class Changes:
    """Names that one listener has not heard yet; a name that changes twice is told once."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._some = asyncio.Event()

    def put(self, name: str) -> None:
        self._names[name] = None
        self._some.set()

    async def get(self) -> str:
        while not self._names:
            self._some.clear()
            await self._some.wait()
        name = next(iter(self._names))
        del self._names[name]
        return name


class ClusterView:
    """Of everything that `selector` finds in `namespace`, or in all where that is None."""

    def __init__(self, objects: Objects, namespace: str | None, selector: str) -> None:
        self._deployments = Informer(objects, DEPLOYMENT, namespace, selector, self._changed)
        self._pods = Informer(objects, POD, namespace, selector, self._pod_changed)
        self._pods_of: defaultdict[str, dict[Key, None]] = defaultdict(dict)
        self._written: dict[Key, int] = {}
        self._listeners: set[Changes] = set()
        self._running: asyncio.Task[None] | None = None

    async def changes(self) -> AsyncGenerator[str, None]:
        """External names, without end. The copy is kept while this runs."""
        heard = Changes()
        self._listeners.add(heard)
        for value in self._deployments.by_key.values():
            heard.put(_endpoint(value))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="kubernetes:view")
        try:
            while True:
                yield await heard.get()
        finally:
            self._listeners.discard(heard)
            if not self._listeners:
                await self.aclose()

    def known(self, namespace: str, name: str) -> Object | None:
        """The Deployment, where the copy can be believed; None: ask the cluster."""
        if not (self._deployments.fresh and self._pods.fresh):
            return None
        found = self._deployments.by_key.get((namespace, name))
        if found is None or "deletionTimestamp" in found["metadata"]:
            return None
        written = self._written.get((namespace, name))
        if written is not None:
            if _revision(found) < written:
                return None
            del self._written[namespace, name]
        return found

    def pods(self, endpoint: str) -> list[Object]:
        keys = self._pods_of.get(endpoint, ())
        return [pod for key in keys if (pod := self._pods.by_key.get(key)) is not None]

    def wrote(self, value: Object) -> None:
        """A Deployment, as the answer to a write has it."""
        if self._running is not None:
            self._written[key_of(value)] = _revision(value)

    async def aclose(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        self._deployments.fresh = self._pods.fresh = False
        self._written.clear()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._deployments.run())
            tasks.create_task(self._pods.run())

    def _pod_changed(self, value: Object) -> None:
        key, endpoint = key_of(value), _endpoint(value)
        if key in self._pods.by_key:
            self._pods_of[endpoint][key] = None
        else:
            self._pods_of[endpoint].pop(key, None)
            if not self._pods_of[endpoint]:
                del self._pods_of[endpoint]
        self._changed(value)

    def _changed(self, value: Object) -> None:
        name = _endpoint(value)
        for listener in self._listeners:
            listener.put(name)


def _endpoint(value: Object) -> str:
    labels: dict[str, Any] = value["metadata"].get("labels") or {}
    return str(labels.get(marks.ENDPOINT, ""))


def _revision(value: Object) -> int:
    """Revisions grow: the API says so since Kubernetes 1.35, and every server before it did."""
    text = str(value["metadata"].get("resourceVersion") or "")
    return int(text) if text.isdecimal() else 0
