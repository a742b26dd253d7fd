"""What the driver `kubernetes` of the provider `managed` asks of a cluster, told by the stand-in."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

import moorage_managed
from moorage.domain.compute import GIB, Estimate, Requirements, RuntimeOption
from moorage.domain.deployment import Handle
from moorage.domain.model import ContainerImage
from moorage.domain.workload import (
    Autoscale,
    HealthCheck,
    Metric,
    Ports,
    Resources,
    ScalingTarget,
    Volume,
    Workload,
)
from moorage.ports.provider import Absent, Credentials, ProviderConfig, RevisionPlan
from moorage.testing.provider_contract import ProviderContract, until_absent, until_ready
from moorage_kubernetes.testing import ANY_MODE, Command, StandInCluster, Start
from moorage_kubernetes.testing.statuses import ApiError
from moorage_kubernetes.testing.targets import target, verb
from moorage_kubernetes.testing.watching import is_watch
from moorage_managed.clusters.provider import OperatorClusters

WORKLOAD = Workload(
    resources=Resources(cpu_request=0.5, cpu_limit=1, memory_request=GIB, memory_limit=2 * GIB),
    ports=Ports(http=8200),
    health=HealthCheck("/health", 8200, initial_delay=0, period=1, timeout=1),
    volumes=(Volume("weights", "/weights", GIB, storage_class="shared"),),
    autoscale=Autoscale((ScalingTarget(Metric.CPU, 70),)),
    secret_env=("TOKEN",),
)
SERVER = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    do_POST = do_GET
print("a line", flush=True)
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Ready).serve_forever()
"""


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """`resource` may have a subresource (`pods/log`)."""

    group: str
    resource: str
    verb: str


def asked_of(cluster: StandInCluster) -> set[Permission]:
    """The permissions that a real API server would have looked for."""
    found: set[Permission] = set()
    for seen in cluster.requests:
        try:
            wanted = target(seen.path, cluster.world.catalog)
        except ApiError:
            continue  # versions and discovery, which any account may read
        resource = wanted.resource.plural + (f"/{wanted.subresource}" if wanted.subresource else "")
        asked = verb(seen.method, bool(wanted.name), is_watch(seen.query) and not wanted.subresource)
        found.add(Permission(wanted.resource.group, resource, asked))
        if "apply-patch" in seen.content_type:  # which makes what is not there
            found.add(Permission(wanted.resource.group, resource, "create"))
    return found


@dataclass(slots=True)
class Life:
    """Deployments on one cluster that is the operator's."""

    cluster: StandInCluster
    provider: OperatorClusters
    opened: Credentials

    async def straight(self) -> None:
        """Made, asked, changed, stopped, woken, and removed."""
        await self.provider.check_credentials(self.opened)
        plan = await self._plan(WORKLOAD)
        handle = await self.provider.create(plan, ProviderContract.new_name(), self.opened)
        watching = asyncio.create_task(self._first_news())
        await until_ready(self.provider, handle, self.opened, 20)
        await self._ask(handle)
        assert [line async for line in self.provider.logs(handle, self.opened, tail=5, follow=False)]
        assert await self.provider.find(handle.name, self.opened) is not None
        handle = await self.provider.apply(handle, replace(plan, env={"TOKEN": "another"}), self.opened)
        await until_ready(self.provider, handle, self.opened, 20)
        await _until(lambda: self._stopped(handle))
        await self.provider.wake(handle, self.opened)
        await self.provider.apply(handle, plan, self.opened)
        await until_ready(self.provider, handle, self.opened, 20)
        async with asyncio.timeout(20):
            await watching
        await until_absent(self.provider, handle, self.opened, 20)

    async def without_room(self) -> None:
        """More than any node has: the causes are looked for, and it is removed."""
        large = replace(WORKLOAD, resources=Resources(cpu_request=30, cpu_limit=30), volumes=())
        handle = await self.provider.create(await self._plan(large), ProviderContract.new_name(), self.opened)
        await _until(lambda: self._in_trouble(handle))
        await until_absent(self.provider, handle, self.opened, 20)
        assert [found async for found in self.provider.owned(self.opened)] == []

    async def robbed(self) -> None:
        """Somebody took the Deployment away and left its pods, and whatever makes more of them."""
        plan = await self._plan(replace(WORKLOAD, volumes=()))
        handle = await self.provider.create(plan, ProviderContract.new_name(), self.opened)
        await until_ready(self.provider, handle, self.opened, 20)
        one = f"/apis/apps/v1/namespaces/moorage-org-a/deployments/{handle.name}"
        async with self._http(self.opened.values["certificate_authority"]) as client:
            await client.delete(f"{self.cluster.url}{one}", params={"propagationPolicy": "Orphan"})
        await self.cluster.came(lambda: not self.cluster.objects("deployments"))
        await until_absent(self.provider, handle, self.opened, 20)

    async def _plan(self, workload: Workload) -> RevisionPlan:
        options = tuple(RuntimeOption("image", on, Estimate(0, 0.0, ())) for on in (False, True))
        need = Requirements(options, 1, "image", max_replicas=2, workload=replace(WORKLOAD, volumes=()))
        offer, *_ = await self.provider.offers(need, self.opened)
        return RevisionPlan(
            deployment_id="dep_life",
            organization_id="org_a",
            revision=1,
            source=ContainerImage("registry.example.com/acme/served:1.0"),
            runtime="image",
            offer=offer,
            replicas=1,
            max_replicas=2,
            memory_bytes=0,
            env={"TOKEN": "hush"},
            workload=workload,
        )

    async def _stopped(self, handle: Handle) -> bool:
        return isinstance(await self.provider.stop(handle, self.opened), Absent)

    async def _in_trouble(self, handle: Handle) -> bool:
        return (await self.provider.observe(handle, self.opened)).trouble is not None

    async def _ask(self, handle: Handle) -> None:
        """As the gateway does, through the API server."""
        seen = await self.provider.observe(handle, self.opened)
        assert seen.access.authority is not None
        async with self._http(self.opened.values[seen.access.authority]) as client:
            url = str(seen.replicas[0].url)
            assert (await client.get(f"{url}/health")).status_code == 200
            assert (await client.post(f"{url}/infer", json={})).status_code == 200

    def _http(self, authority: str) -> httpx.AsyncClient:
        tls = ssl.create_default_context(cadata=authority)
        bearer = {"Authorization": f"Bearer {self.opened.values['token']}"}
        return httpx.AsyncClient(verify=tls, headers=bearer)

    async def _first_news(self) -> None:
        watch = self.provider.watch(self.opened)
        async with aclosing(watch) as names:  # type: ignore[type-var]  # an iterator, and a generator in fact
            async for _ in names:
                return


@asynccontextmanager
async def operators_cluster(folder: Path, add_ons: Iterable[str]) -> AsyncIterator[Life]:
    """With one node, where replicas are processes."""
    async with StandInCluster(add_ons=add_ons, node=False) as cluster:
        cluster.add_node("node-1", {"cloud.google.com/gke-nodepool": "cpu"})
        cluster.add_storage_class("shared", ANY_MODE)
        cluster.run_pods_with(_served)
        kubeconfig = folder / "here.yaml"
        kubeconfig.write_text(cluster.kubeconfig())
        environ = {
            "MOORAGE_MANAGED_DRIVER": "kubernetes",
            "MOORAGE_MANAGED_KUBECONFIGS": str(kubeconfig),
            "MOORAGE_KUBERNETES_CAPACITY_PATIENCE_SECONDS": "0.1",
        }
        provider = moorage_managed.provider(ProviderConfig(folder, environ, installation="inst_deploy"))
        assert isinstance(provider, OperatorClusters)
        try:
            yield Life(cluster, provider, provider.operator_accounts()["here"])
        finally:
            await provider.aclose()


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


def _served(start: Start) -> Command:
    return Command([sys.executable, "-c", SERVER])
