"""The endpoints of one cluster: made, found, looked at, stopped, woken and removed.

It knows nothing of accounts: an organization's own cluster and an operator's are the same to it, but for
whose namespace an endpoint goes to, which its tenancy decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any  # Kubernetes objects as they are read

from moorage.domain.compute import Requirements
from moorage.domain.deployment import Handle
from moorage.domain.naming import parse_external_name
from moorage.domain.observation import Observation, ReplicaState
from moorage.domain.workload import Workload
from moorage.errors import Gone
from moorage.ports.provider import Absent, LogLine, RevisionPlan, StillThere
from moorage_kubernetes import marks
from moorage_kubernetes.applying import Objects
from moorage_kubernetes.autoscaling import refuse_scaling
from moorage_kubernetes.client import ClusterClient
from moorage_kubernetes.installed import installed_tools
from moorage_kubernetes.kinds import CLAIM, DEPLOYMENT, POD, SCALED_OBJECT, SCALERS, SERVICE
from moorage_kubernetes.log_reading import read_logs
from moorage_kubernetes.looking import Looker
from moorage_kubernetes.making import Maker
from moorage_kubernetes.objects import Goal, goal_of
from moorage_kubernetes.offers import PROVIDER
from moorage_kubernetes.removing import Remover
from moorage_kubernetes.settings import KubernetesSettings
from moorage_kubernetes.tenancy import Tenancy
from moorage_kubernetes.tools import ClusterTools
from moorage_kubernetes.watching import ClusterView

Object = dict[str, Any]

TOOLS_SECONDS = 60.0  # that what is installed on a cluster is taken to stay
STOPPING_SECONDS = 0.5


def utc_now() -> datetime:
    return datetime.now(UTC)


class ClusterEndpoints:
    """`provider` is the name in the handles. Every method raises ProviderErrors only."""

    def __init__(
        self,
        client: ClusterClient,
        settings: KubernetesSettings,
        tenancy: Tenancy,
        *,
        provider: str = PROVIDER,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.client = client
        self._settings = settings
        self._tenancy = tenancy
        self._provider = provider
        self._objects = Objects(client)
        self._view = ClusterView(self._objects, tenancy.scope, marks.selector(settings.installation))
        self._maker = Maker(self._objects, client, tenancy, settings.installation)
        self._remover = Remover(self._objects, settings.installation)
        self._looker = Looker(client, self._objects, self._view, settings, now)
        self._tools: tuple[float, ClusterTools] | None = None
        self._reading_tools = asyncio.Lock()

    async def refuse_impossible(self, need: Requirements) -> None:
        """Raises Rejected for what a deployment asks of a cluster and this one cannot do, so that it is known
        before the deployment is accepted; with what is missing, and where to say otherwise."""
        workload = need.workload
        if workload is None:
            return
        if _needs_tools(workload):
            refuse_scaling(workload, need.replicas, need.max_replicas, await self.tools())
        scope = self._tenancy.scope
        if scope is not None:  # elsewhere nobody knows yet whose claims they would be
            await self._maker.refuse_volumes(scope, workload.volumes, need.max_replicas)

    async def find(self, name: str) -> Handle | None:
        """Anything of that name, also what a create left that died on its way."""
        namespace = await self._namespace_of(name)
        return None if namespace is None else self._handle(namespace, name)

    async def create(self, plan: RevisionPlan, name: str) -> Handle:
        namespace = self._tenancy.namespace(plan.organization_id)
        goal = await self._goal(plan, name, namespace)
        live = await self._objects.get(DEPLOYMENT, namespace, name)
        self._view.wrote(await self._maker.make(goal, plan.organization_id, live))
        return self._handle(namespace, name)

    async def apply(self, handle: Handle, plan: RevisionPlan) -> Handle:
        """Raises Gone; Rejected where the cluster cannot change what was asked to be changed."""
        namespace, live = await self._live(handle)
        goal = await self._goal(plan, handle.name, namespace)
        self._view.wrote(await self._maker.make(goal, plan.organization_id, live))
        return self._handle(namespace, handle.name)

    async def observe(self, handle: Handle) -> Observation:
        """Raises Gone. What was woken and serves is given back to its autoscaler."""
        namespace = await self._namespace(handle)
        seen, deployment = await self._looker.look(namespace, handle.name)
        woken = marks.WOKEN in (deployment["metadata"].get("annotations") or {})
        if woken and any(r.state is ReplicaState.READY for r in seen.replicas):
            await self._activate(namespace, handle.name, wanted=False)
            await self._note(namespace, handle.name, {marks.WOKEN: None})
        return seen

    async def stop(self, handle: Handle) -> Absent | StillThere:
        """Autoscalers first, or they would start it again. Raises Gone."""
        namespace, live = await self._live(handle)
        annotations = live["metadata"].get("annotations") or {}
        if marks.STOPPED not in annotations or live["spec"].get("replicas", 1) != 0:
            applied = annotations.get(marks.EXTRAS, "").split(",")
            for kind in SCALERS:
                if kind.name in applied:
                    await self._objects.delete(kind, namespace, handle.name)
            await self._halt(namespace, handle.name, {marks.STOPPED: "true"})
        if annotations.get(marks.FRONTED) == "true":
            await self._halt(namespace, marks.front_name(handle.name), {})
        selector = marks.selector(self._settings.installation, handle.name)
        left = await self._objects.list(POD, namespace, selector)
        return StillThere(STOPPING_SECONDS) if left else Absent()

    async def wake(self, handle: Handle) -> None:
        """Raises Gone. Noted on the Deployment first, so that it is taken back whoever sees it serve."""
        namespace = await self._namespace(handle)
        await self._note(namespace, handle.name, {marks.WOKEN: "true"})
        await self._activate(namespace, handle.name, wanted=True)

    async def delete(self, handle: Handle) -> Absent | StillThere:
        namespace = handle.ref.get("namespace") or await self._namespace_of(handle.name)
        if namespace is None:
            return Absent()
        return await self._remover.remove(namespace, handle.name)

    async def owned(self) -> AsyncGenerator[Handle, None]:
        """Everything of this installation, also what has lost its Deployment."""
        selector = marks.selector(self._settings.installation)
        told: set[tuple[str, str]] = set()
        for kind in (DEPLOYMENT, SERVICE, CLAIM):
            for each in await self._objects.list(kind, self._tenancy.scope, selector):
                metadata = each["metadata"]
                name = str((metadata.get("labels") or {}).get(marks.ENDPOINT, ""))
                key = (str(metadata["namespace"]), name)
                if key not in told and parse_external_name(name) is not None:
                    told.add(key)
                    yield self._handle(*key)

    async def logs(self, handle: Handle, *, tail: int, follow: bool) -> AsyncGenerator[LogLine, None]:
        """Raises Gone."""
        namespace = await self._namespace(handle)
        reading = read_logs(
            self.client,
            self._objects,
            self._settings.installation,
            namespace,
            handle.name,
            tail=tail,
            follow=follow,
        )
        async with aclosing(reading) as lines:
            async for line in lines:
                yield line

    async def watch(self) -> AsyncGenerator[str, None]:
        async with aclosing(self._view.changes()) as names:
            async for name in names:
                if parse_external_name(name) is not None:
                    yield name

    async def tools(self) -> ClusterTools:
        """What is installed there, as of a minute ago at most."""
        async with self._reading_tools:
            if self._tools is None or time.monotonic() - self._tools[0] > TOOLS_SECONDS:
                self._tools = (time.monotonic(), await installed_tools(self.client, self.client.values))
            return self._tools[1]

    def forget_tools(self) -> None:
        """Somebody may have installed one."""
        self._tools = None

    async def aclose(self) -> None:
        await self._view.aclose()

    # -- parts --------------------------------------------------------------------------------------------

    async def _goal(self, plan: RevisionPlan, name: str, namespace: str) -> Goal:
        """Raises Rejected. The cluster is asked what it has only where something of it is needed."""
        gateway = self.client.values.get("gateway", "")
        needs = plan.workload is not None and _needs_tools(plan.workload)
        tools = await self.tools() if needs or gateway else ClusterTools()
        return goal_of(plan, name, namespace, self._settings, tools, gateway)

    async def _live(self, handle: Handle) -> tuple[str, Object]:
        namespace = await self._namespace(handle)
        live = await self._objects.get(DEPLOYMENT, namespace, handle.name)
        if live is None:
            raise Gone(f"The cluster has no deployment {handle.name}")
        return namespace, live

    async def _namespace(self, handle: Handle) -> str:
        """Of a handle that was made from the name alone, by looking. Raises Gone."""
        found = handle.ref.get("namespace") or self._tenancy.scope or await self._namespace_of(handle.name)
        if found is None:
            raise Gone(f"The cluster has no deployment {handle.name}")
        return found

    async def _namespace_of(self, name: str) -> str | None:
        """Where there is anything of that name."""
        scope = self._tenancy.scope
        if scope is not None and await self._objects.get(DEPLOYMENT, scope, name) is not None:
            return scope
        selector = marks.selector(self._settings.installation, name)
        for kind in (DEPLOYMENT, SERVICE, CLAIM):
            for each in await self._objects.list(kind, scope, selector):
                return str(each["metadata"]["namespace"])
        return None

    async def _halt(self, namespace: str, name: str, notes: dict[str, str]) -> None:
        change = {"spec": {"replicas": 0}, "metadata": {"annotations": notes}}
        self._view.wrote(await self._objects.merge(DEPLOYMENT, namespace, name, change))

    async def _note(self, namespace: str, name: str, notes: dict[str, str | None]) -> None:
        change = {"metadata": {"annotations": notes}}
        self._view.wrote(await self._objects.merge(DEPLOYMENT, namespace, name, change))

    async def _activate(self, namespace: str, name: str, *, wanted: bool) -> None:
        """KEDA's own way to have a replica whatever its triggers say. Without KEDA's object there is nothing
        that could have let it down, and one replica is asked for directly."""
        note = {marks.KEDA_ACTIVATION: "true" if wanted else None}
        try:
            await self._objects.merge(SCALED_OBJECT, namespace, name, {"metadata": {"annotations": note}})
        except Gone:
            if wanted:
                change = {"spec": {"replicas": 1}}
                self._view.wrote(await self._objects.merge(DEPLOYMENT, namespace, name, change))

    def _handle(self, namespace: str, name: str) -> Handle:
        return Handle(self._provider, name, {"namespace": namespace})


def _needs_tools(workload: Workload) -> bool:
    return workload.autoscale is not None or workload.queued is not None
