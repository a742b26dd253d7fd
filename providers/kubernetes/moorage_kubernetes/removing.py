"""Deleting an endpoint until nothing of it is left, and knowing that.

A deletion is repeated until the cluster says of every object that it is not there: that answer is the proof,
and no record of ours. Volumes that we made go too; those that we found stay. A queue is emptied and removed
first, by who knows where it is.
"""

from __future__ import annotations

import asyncio
from typing import Any  # Kubernetes objects as they are read

from moorage.errors import PermissionMissing
from moorage.ports.provider import Absent, StillThere
from moorage_kubernetes import marks
from moorage_kubernetes.applying import Objects
from moorage_kubernetes.kinds import (
    BUDGET,
    CLAIM,
    DEPLOYMENT,
    EXTRAS,
    POD,
    REPLICA_SET,
    SCALERS,
    SECRET,
    SERVICE,
    Kind,
)
from moorage_kubernetes.queue_removal import is_over, to_removal

Object = dict[str, Any]

AGAIN_SECONDS = 0.5
FIRST_AGAIN_SECONDS = 0.1


class Remover:
    """Of one cluster."""

    def __init__(self, objects: Objects, installation: str) -> None:
        self._objects = objects
        self._installation = installation

    async def remove(self, namespace: str, name: str) -> Absent | StillThere:
        """Deployments first, and pods with them; then the rest, the Service last. Raises ProviderErrors."""
        if not await self._queue_removed(namespace, name):
            return StillThere(AGAIN_SECONDS)
        front = marks.front_name(name)
        there = await self._delete_all(namespace, [(DEPLOYMENT, name), (DEPLOYMENT, front)], foreground=True)
        if there:
            return StillThere(FIRST_AGAIN_SECONDS)
        selector = marks.selector(self._installation, name)
        pods, claims = await asyncio.gather(
            self._objects.list(POD, namespace, selector), self._objects.list(CLAIM, namespace, selector)
        )
        names = [(CLAIM, each["metadata"]["name"]) for each in claims]
        names += [(kind, name) for kind in (*EXTRAS, BUDGET, SECRET)]
        names.append((SECRET, marks.registry_secret(name)))
        if pods:  # somebody may have deleted the Deployment alone, and what it made makes more of them
            sets = await self._objects.list(REPLICA_SET, namespace, selector)
            names += [(REPLICA_SET, each["metadata"]["name"]) for each in sets]
        if await self._delete_all(namespace, names) or pods:
            return StillThere(AGAIN_SECONDS if pods or claims else FIRST_AGAIN_SECONDS)
        if await self._objects.delete(SERVICE, namespace, name):
            return StillThere(FIRST_AGAIN_SECONDS)
        return Absent()

    async def _queue_removed(self, namespace: str, name: str) -> bool:
        """Whether there is nothing to do, or to hope for, about the queue of an endpoint. Consumers go first,
        with the time that they have for jobs in hand: they would make it anew."""
        live = await self._objects.get(DEPLOYMENT, namespace, name)
        if live is None or (live["metadata"].get("annotations") or {}).get(marks.FRONTED) != "true":
            return True
        front = await self._objects.get(DEPLOYMENT, namespace, marks.front_name(name))
        if front is None or any("deletionTimestamp" in each["metadata"] for each in (live, front)):
            return True
        await self._delete_all(namespace, [(kind, name) for kind in SCALERS])
        if live["spec"].get("replicas", 1) != 0:
            await self._objects.merge(DEPLOYMENT, namespace, name, {"spec": {"replicas": 0}})
        consumers = f"{marks.selector(self._installation, name)},{marks.ROLE}={marks.REPLICA}"
        if await self._objects.list(POD, namespace, consumers):
            return False
        change = to_removal(front)
        if change is not None:
            await self._objects.merge(DEPLOYMENT, namespace, marks.front_name(name), change)
            return False
        return is_over(front)

    async def _delete_all(
        self, namespace: str, names: list[tuple[Kind, str]], *, foreground: bool = False
    ) -> bool:
        """Whether any was there."""
        answers = await asyncio.gather(
            *(self._delete(kind, namespace, name, foreground=foreground) for kind, name in names),
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return any(answers)

    async def _delete(self, kind: Kind, namespace: str, name: str, *, foreground: bool) -> bool:
        try:
            return await self._objects.delete(kind, namespace, name, foreground=foreground)
        except PermissionMissing:
            if kind.optional:  # we may not have made it either; and what we made goes with its Deployment
                return False
            raise
