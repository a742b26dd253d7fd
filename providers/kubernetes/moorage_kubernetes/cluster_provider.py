"""The provider `kubernetes`: clusters that organizations import, each an account of its own.

It holds no state that matters. Whatever it made is found again by labels, so that any process can go on where
another one died.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from moorage.domain.cluster import ClusterReport
from moorage.domain.compute import Feature, Offer, Requirements
from moorage.domain.deployment import Handle
from moorage.domain.observation import Observation
from moorage.errors import PermissionMissing
from moorage.ports import Absent, Account, Credentials, LogLine, Resolve, RevisionPlan, StillThere
from moorage_kubernetes import checking, reading
from moorage_kubernetes.client import CLIENTS_KEPT, Clients, ClusterClient
from moorage_kubernetes.endpoints import ClusterEndpoints, utc_now
from moorage_kubernetes.failures import ACCESS_ADVICE
from moorage_kubernetes.kubeconfig import read_access
from moorage_kubernetes.nodes import NodeState, node_states
from moorage_kubernetes.offers import PROVIDER, make_offers
from moorage_kubernetes.settings import KubernetesSettings
from moorage_kubernetes.tenancy import OneNamespace

NODES_SECONDS = 2.0  # that a reading of nodes and pods stands, for many who ask at the same time


class KubernetesProvider:
    name = PROVIDER
    unsupported: Mapping[Feature, str] = {
        Feature.SERVERLESS: "a cluster has its own autoscaler: use workload.autoscale and scale_to_zero",
    }
    credential_fields: Mapping[str, str] = {
        "server": "the https URL of the cluster's API server",
        "certificate_authority": "the PEM of the authority of its certificate",
        "token": "a token of a service account that may run deployments there",
    }

    def __init__(self, settings: KubernetesSettings, resolve: Resolve | None) -> None:
        self._settings = settings
        self._clients = Clients(resolve, namespace=settings.namespace, seconds=settings.call_seconds)
        self._endpoints: dict[ClusterClient, ClusterEndpoints] = {}
        self._nodes: dict[ClusterClient, tuple[float, tuple[NodeState, ...]]] = {}

    def read_access(self, given: Mapping[str, str]) -> Mapping[str, str]:
        return read_access(given, utc_now())

    async def check(self, credentials: Credentials) -> ClusterReport:
        client = self._clients.of(credentials)
        return await checking.check(client, client.values, utc_now())

    async def check_credentials(self, credentials: Credentials | None) -> Account:
        """Asks the cluster who we are to it, by what we may do there. Its version it tells anybody."""
        client = self._clients.of(credentials)
        attributes = {
            "verb": "create",
            "group": "apps",
            "resource": "deployments",
            "namespace": client.namespace,
        }
        if not await reading.allowed(client, attributes):
            detail = f"The cluster's account may not create deployments in namespace {client.namespace}"
            raise PermissionMissing(detail, advice=ACCESS_ADVICE)
        return Account(_account_id(client), f"Kubernetes {await reading.version(client)} at {client.server}")

    async def offers(self, need: Requirements, credentials: Credentials | None) -> Sequence[Offer]:
        client = self._clients.of(credentials)
        offers = make_offers(need, need.node_groups, await self._node_states(client), utc_now().date())
        # Of the runtimes, only those with an image can run there; an image of the owner's own always can.
        engines = (*self._settings.images, "image")
        return [replace(offer, engines=engines, by_running=True) for offer in offers]

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

    def _of(self, credentials: Credentials | None) -> ClusterEndpoints:
        client = self._clients.of(credentials)
        found = self._endpoints.get(client)
        if found is None:
            if len(self._endpoints) >= CLIENTS_KEPT:
                self._endpoints = {c: e for c, e in self._endpoints.items() if not c.closed}
                self._nodes = {c: n for c, n in self._nodes.items() if not c.closed}
            found = ClusterEndpoints(client, self._settings, OneNamespace(client.namespace))
            self._endpoints[client] = found
        return found

    async def _node_states(self, client: ClusterClient) -> tuple[NodeState, ...]:
        kept = self._nodes.get(client)
        if kept is not None and time.monotonic() - kept[0] < NODES_SECONDS:
            return kept[1]
        nodes = await reading.nodes(client)
        pods = await reading.living_pods(client)
        states = node_states(nodes, pods)
        self._nodes[client] = (time.monotonic(), states)
        return states


def _account_id(client: ClusterClient) -> str:
    """Stable for the cluster, whoever opens it."""
    text = f"moorage kubernetes cluster\0{client.server}\0{client.values.get('certificate_authority', '')}"
    return "kubernetes-" + hashlib.sha256(text.encode()).hexdigest()[:32]
