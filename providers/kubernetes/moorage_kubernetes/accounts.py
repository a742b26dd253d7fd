"""What every provider of clusters does with the credentials of a call: one client, one set of endpoints and
one view of the nodes for each cluster, and the call passed on to them.

Whose clusters they are makes no difference here. It decides the name in handles and offers, the guard for
addresses, and the tenancy: one namespace, or one for each organization.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace

from moorage.domain.compute import Offer
from moorage.domain.deployment import Handle
from moorage.domain.observation import Observation
from moorage.ports.outside import Resolve
from moorage.ports.provider import Absent, Credentials, LogLine, RevisionPlan, StillThere
from moorage_kubernetes import reading
from moorage_kubernetes.client import CLIENTS_KEPT, Clients, ClusterClient
from moorage_kubernetes.endpoints import ClusterEndpoints
from moorage_kubernetes.nodes import NodeState, node_states
from moorage_kubernetes.settings import KubernetesSettings
from moorage_kubernetes.tenancy import Tenancy

NODES_SECONDS = 2.0  # that a reading of nodes and pods stands, for many who ask at the same time


class ClusterAccounts:
    """Each method that is a port's raises ProviderErrors only. It holds no state that matters: whatever was
    made is found again by labels, so that any process can go on where another one died."""

    def __init__(
        self,
        name: str,
        settings: KubernetesSettings,
        resolve: Resolve | None,
        tenancy: Callable[[ClusterClient], Tenancy],
    ) -> None:
        self.name = name
        self._settings = settings
        self._tenancy = tenancy
        self._clients = Clients(resolve, namespace=settings.namespace, seconds=settings.call_seconds)
        self._endpoints: dict[ClusterClient, ClusterEndpoints] = {}
        self._nodes: dict[ClusterClient, tuple[float, tuple[NodeState, ...]]] = {}

    async def find(self, name: str, credentials: Credentials | None) -> Handle | None:
        return await self._of(credentials).find(name)

    async def create(self, plan: RevisionPlan, name: str, credentials: Credentials | None) -> Handle:
        """A cluster takes a deployment that it has no room for: `observe` tells of that."""
        return await self._of(credentials).create(plan, name)

    async def observe(self, handle: Handle, credentials: Credentials | None) -> Observation:
        return await self._of(credentials).observe(handle)

    async def apply(self, handle: Handle, plan: RevisionPlan, credentials: Credentials | None) -> Handle:
        return await self._of(credentials).apply(handle, plan)

    async def stop(self, handle: Handle, credentials: Credentials | None) -> Absent | StillThere:
        return await self._of(credentials).stop(handle)

    async def wake(self, handle: Handle, credentials: Credentials | None) -> None:
        await self._of(credentials).wake(handle)

    async def delete(self, handle: Handle, credentials: Credentials | None) -> Absent | StillThere:
        return await self._of(credentials).delete(handle)

    async def owned(self, credentials: Credentials | None) -> AsyncIterator[Handle]:
        async with aclosing(self._of(credentials).owned()) as handles:
            async for handle in handles:
                yield handle

    async def logs(
        self, handle: Handle, credentials: Credentials | None, *, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        async with aclosing(self._of(credentials).logs(handle, tail=tail, follow=follow)) as lines:
            async for line in lines:
                yield line

    async def watch(self, credentials: Credentials | None) -> AsyncIterator[str]:
        async with aclosing(self._of(credentials).watch()) as names:
            async for name in names:
                yield name

    async def aclose(self) -> None:
        for endpoints in self._endpoints.values():
            await endpoints.aclose()
        self._endpoints.clear()
        await self._clients.aclose()

    # -- for those that build on it -----------------------------------------------------------------------

    def _runnable(self, offers: Iterable[Offer]) -> list[Offer]:
        """Of the runtimes, only those with an image can run there; an image of the owner's own always can."""
        engines = (*self._settings.images, "image")
        return [replace(offer, engines=engines, by_running=True) for offer in offers]

    async def _node_states(self, client: ClusterClient) -> tuple[NodeState, ...]:
        kept = self._nodes.get(client)
        if kept is not None and time.monotonic() - kept[0] < NODES_SECONDS:
            return kept[1]
        nodes = await reading.nodes(client)
        pods = await reading.living_pods(client)
        states = node_states(nodes, pods)
        self._nodes[client] = (time.monotonic(), states)
        return states

    def _of(self, credentials: Credentials | None) -> ClusterEndpoints:
        client = self._clients.of(credentials)
        found = self._endpoints.get(client)
        if found is None:
            if len(self._endpoints) >= CLIENTS_KEPT:
                self._endpoints = {c: e for c, e in self._endpoints.items() if not c.closed}
                self._nodes = {c: n for c, n in self._nodes.items() if not c.closed}
            found = ClusterEndpoints(client, self._settings, self._tenancy(client), provider=self.name)
            self._endpoints[client] = found
        return found
