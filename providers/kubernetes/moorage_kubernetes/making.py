"""Bringing a cluster to what a plan says: the order of writes, and what must be known before the first.

Any step may be the last of this process, and any answer may be lost. So each is repeatable, nothing depends
on having seen an answer, and what is missing is found by looking.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any  # Kubernetes objects as they are read and sent

from moorage.domain.workload import Volume
from moorage.errors import Conflict, Gone, PermissionMissing, Retry
from moorage_kubernetes import marks
from moorage_kubernetes.applying import Objects
from moorage_kubernetes.drift import remarked
from moorage_kubernetes.kinds import CLAIM, DEPLOYMENT, EXTRAS, NAMESPACE
from moorage_kubernetes.objects import Goal, owned_by
from moorage_kubernetes.reading import Reader, storage_classes
from moorage_kubernetes.storage_classes import storage_classes as known_modes
from moorage_kubernetes.tenancy import Tenancy
from moorage_kubernetes.volumes import claim, claims_to_make, refuse_access_modes

Object = dict[str, Any]

TERMINATING_SECONDS = 1.0


class Maker:
    """On one cluster."""

    def __init__(self, objects: Objects, reader: Reader, tenancy: Tenancy, installation: str) -> None:
        self._objects = objects
        self._reader = reader
        self._tenancy = tenancy
        self._installation = installation
        self._furnished: set[str] = set()

    async def make(self, goal: Goal, organization_id: str, live: Object | None) -> Object:
        """The Deployment as it is then; `live` is the one that was there. Raises ProviderErrors, but never
        Gone: what is missing on the way is no word on the endpoint."""
        if live is not None and "deletionTimestamp" in live["metadata"]:
            raise Retry(f"{goal.name} is being deleted", after=TERMINATING_SECONDS)
        try:
            return await self._make(goal, organization_id, live)
        except Gone as error:
            self._furnished.discard(goal.namespace)
            raise Retry(error.detail, advice=error.advice) from None

    async def _make(self, goal: Goal, organization_id: str, live: Object | None) -> Object:
        await self._furnish(goal.namespace, organization_id)
        claims = await self._claims(goal)
        first = [goal.service, *goal.secrets]
        if live is not None:
            first = [owned_by(each, live) for each in first]
        for each in first[:1]:  # the Service, by which the rest is found again
            await self._objects.apply(each)
        for wanted in claims:
            await self._claim(wanted)
        await self._apply_all(first[1:])
        if live is not None:
            await self._let_go(goal, live)
        made = await self._deployment(goal, live)
        if live is None:
            await self._apply_all(owned_by(each, made) for each in first)
        front, *_ = [*goal.deployments[1:], None]
        if front is not None:
            await self._front(owned_by(front, made))
        await self._apply_all(owned_by(each, made) for each in (*goal.budgets, *goal.extras))
        return made

    async def _apply_all(self, wanted: Iterable[Object]) -> None:
        """Together, and to the end even where one fails: nothing may be written after we have returned."""
        answers = await asyncio.gather(*(self._objects.apply(e) for e in wanted), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _deployment(self, goal: Goal, live: Object | None) -> Object:
        """With as many replicas as it is to have, unless an autoscaler decides.

        `replicas` is no part of what is applied: a field that was applied once and then left out would fall
        back to one replica, at the moment in which an autoscaler takes over."""
        made = await self._objects.apply(goal.deployments[0])
        there = made["spec"].get("replicas", 1)
        was_stopped = marks.STOPPED in (made["metadata"].get("annotations") or {})
        begins = live is None or was_stopped
        change: dict[str, Any] = {}
        if (begins or not goal.autoscaled) and there != goal.replicas:
            change["spec"] = {"replicas": goal.replicas}
        notes: dict[str, str | None] = {}
        if was_stopped:
            notes[marks.STOPPED] = None
        mark = remarked(made)
        if mark is not None:
            notes[marks.PLAN] = mark
        if notes:
            change["metadata"] = {"annotations": notes}
        if not change:
            return made
        return await self._objects.merge(DEPLOYMENT, goal.namespace, goal.name, change)

    async def _front(self, wanted: Object) -> None:
        made = await self._objects.apply(wanted)
        metadata = made["metadata"]
        if made["spec"].get("replicas", 1) != 1:
            await self._objects.merge(
                DEPLOYMENT, metadata["namespace"], metadata["name"], {"spec": {"replicas": 1}}
            )

    async def _let_go(self, goal: Goal, live: Object) -> None:
        """Of optional kinds that are no longer wanted; two autoscalers would fight."""
        wanted = {each["kind"] for each in goal.extras}
        there = set((live["metadata"].get("annotations") or {}).get(marks.EXTRAS, "").split(","))
        for kind in EXTRAS:
            if kind.name in there - wanted:
                await self._objects.delete(kind, goal.namespace, goal.name)

    # -- what must be there first -------------------------------------------------------------------------

    async def _furnish(self, namespace: str, organization_id: str) -> None:
        """The namespace, and what stands in it; looked after once in the life of this process, and again when
        something was missing."""
        if namespace in self._furnished:
            return
        room, *rest = self._tenancy.furniture(organization_id, self._installation)
        if rest:
            await self._objects.apply(room)
            for each in rest:
                await self._objects.apply(each)
        elif not await self._has_namespace(namespace):
            with contextlib.suppress(Conflict):  # another process made it
                await self._objects.create(room)
        self._furnished.add(namespace)

    async def _has_namespace(self, namespace: str) -> bool:
        """An account of one namespace alone may not ask, and would not be there without it."""
        try:
            return await self._objects.get(NAMESPACE, "", namespace) is not None
        except PermissionMissing:
            return True

    async def refuse_volumes(self, namespace: str, volumes: Sequence[Volume], replicas: int) -> None:
        """Raises Rejected for what no storage class of the cluster can do. `replicas` is the most."""
        there = await self._claims_there(namespace, volumes)
        await self._refuse_access_modes(volumes, there, replicas)

    async def _claims(self, goal: Goal) -> list[tuple[Object, bool]]:
        """Those to make, each with whether it is there already. Raises Rejected."""
        there = await self._claims_there(goal.namespace, goal.volumes)
        deployment_id = goal.labels[marks.DEPLOYMENT]
        wanted = claims_to_make(goal.volumes, there, self._installation, deployment_id)
        _refuse_leaving(wanted, there)
        await self._refuse_access_modes(goal.volumes, there, goal.max_replicas)
        return [(claim(volume, goal.namespace, goal.labels), volume.name in there) for volume in wanted]

    async def _claims_there(self, namespace: str, volumes: Sequence[Volume]) -> dict[str, Object]:
        """Those of the volumes' names."""
        found = await asyncio.gather(*(self._objects.get(CLAIM, namespace, v.name) for v in volumes))
        return {v.name: claim for v, claim in zip(volumes, found, strict=True) if claim is not None}

    async def _refuse_access_modes(
        self, volumes: Sequence[Volume], there: Mapping[str, Object], replicas: int
    ) -> None:
        if all(volume.name in there for volume in volumes):
            return
        try:
            classes = known_modes(await storage_classes(self._reader))
        except PermissionMissing:
            classes = ()
        refuse_access_modes(volumes, there.keys(), classes, replicas=replicas)

    async def _claim(self, wanted: tuple[Object, bool]) -> None:
        """One that came up since it was looked for is looked at again the next time: it may be anybody's."""
        value, is_there = wanted
        if is_there:
            await self._objects.apply(value)
            return
        try:
            await self._objects.create(value)
        except Conflict:
            raise Retry(
                f"the claim {value['metadata']['name']} was made by somebody else meanwhile"
            ) from None


def _refuse_leaving(wanted: Iterable[Volume], there: Mapping[str, Object]) -> None:
    for volume in wanted:
        if "deletionTimestamp" in there.get(volume.name, {"metadata": {}})["metadata"]:
            message = f"the claim {volume.name} is being deleted"
            raise Retry(message, after=TERMINATING_SECONDS)
