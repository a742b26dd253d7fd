"""The driver `kubernetes`: the provider contract on an operator's cluster, and organizations kept apart."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any  # Kubernetes objects as they are read

import httpx
import pytest

import moorage_managed
from moorage.domain.compute import GIB, Availability, Estimate, Feature, Offer, Requirements, RuntimeOption
from moorage.domain.model import ContainerImage
from moorage.domain.observation import Observation, Trouble
from moorage.domain.workload import (
    Autoscale,
    HealthCheck,
    Metric,
    Ports,
    Queued,
    Resources,
    ScalingTarget,
    Workload,
)
from moorage.errors import NoCapacity, PermissionMissing, Rejected
from moorage.ports.provider import (
    Clusters,
    Credentials,
    Logs,
    OperatorAccounts,
    Provider,
    ProviderConfig,
    RevisionPlan,
    Stop,
    Wake,
    Watch,
)
from moorage.testing.provider_contract import ProviderContract, Restart, need, until_absent, until_ready
from moorage_kubernetes.testing import Command, StandInCluster, Start
from moorage_managed.clusters.prices import LABEL
from moorage_managed.clusters.provider import OperatorClusters

POOL = {"cloud.google.com/gke-nodepool": "cpu", LABEL: "0.8"}
OFTEN = {"CALL_SECONDS": "5", "CAPACITY_PATIENCE_SECONDS": "0.1"}
LEFT_ALONE = {"serviceaccounts", "events", "limitranges", "resourcequotas", "networkpolicies"}
SMALL = Workload(
    resources=Resources(cpu_request=0.5, cpu_limit=1, memory_request=GIB, memory_limit=2 * GIB),
    ports=Ports(http=8200),
    health=HealthCheck("/health", 8200, initial_delay=0, period=1, timeout=1),
)

SERVER = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
print("first line")
print("second line", flush=True)
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Ready).serve_forever()
"""


@dataclass
class Operator:
    """Two clusters, and providers on them, as one service process after the other would hold them."""

    folder: Path
    east: StandInCluster
    west: StandInCluster
    providers: list[OperatorClusters] = field(default_factory=list)

    def provider(self, **settings: str) -> OperatorClusters:
        for name in ("east", "west"):
            (self.folder / f"{name}.yaml").write_text(getattr(self, name).kubeconfig())
        paths = os.pathsep.join(str(self.folder / f"{name}.yaml") for name in ("east", "west"))
        environ = {
            "MOORAGE_MANAGED_DRIVER": "kubernetes",
            "MOORAGE_MANAGED_KUBECONFIGS": paths,
            **{f"MOORAGE_KUBERNETES_{name}": value for name, value in OFTEN.items()},
            **{f"MOORAGE_MANAGED_{name}": value for name, value in settings.items()},
        }
        made = moorage_managed.provider(ProviderConfig(self.folder, environ, installation="inst_tests"))
        assert isinstance(made, OperatorClusters)
        self.providers.append(made)
        return made

    def left(self) -> list[str]:
        """What is in organizations' namespaces, besides what stands in them always."""
        return [
            f"{resource.plural}/{found['metadata']['name']}"
            for cluster in (self.east, self.west)
            for resource in cluster.world.store.resources()
            if resource.namespaced and resource.plural not in LEFT_ALONE
            for found in cluster.objects(resource.kind)
            if found["metadata"]["namespace"].startswith("moorage-")
        ]

    async def close(self) -> None:
        last = self.provider()
        for opened in last.operator_accounts().values():
            for handle in [handle async for handle in last.owned(opened)]:
                await until_absent(last, handle, opened, 20)
        for provider in self.providers:
            await provider.aclose()
        assert self.left() == [], "nothing of an endpoint is left"
        assert [(r.name, r.refusal) for c in (self.east, self.west) for r in c.refused] == []


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    async with StandInCluster(node=False) as east, StandInCluster(node=False) as west:
        east.add_node("node-1", POOL)
        west.add_node("node-1", {**POOL, LABEL: "1.6"})
        found = Operator(tmp_path, east, west)
        yield found
        await found.close()


@pytest.fixture
def name() -> str:
    return ProviderContract.new_name()


def image(**more: Any) -> Requirements:
    options = tuple(RuntimeOption("image", on, Estimate(0, 0.0, ())) for on in (False, True))
    return Requirements(options, 1, "image", workload=SMALL, **more)


async def plan_on(
    provider: OperatorClusters, cluster: str = "east", organization: str = "org_a", **more: Any
) -> RevisionPlan:
    offers = await provider.offers(image(), provider.operator_accounts()[cluster])
    return plan_of(offers[0], organization, **more)


def plan_of(offer: Offer, organization: str = "org_a", **more: Any) -> RevisionPlan:
    base = RevisionPlan(
        deployment_id="dep_tests",
        organization_id=organization,
        revision=1,
        source=ContainerImage("registry.example.com/acme/served:1.0"),
        runtime="image",
        offer=offer,
        replicas=1,
        memory_bytes=0,
        workload=SMALL,
    )
    return replace(base, **more)


def talkative(start: Start) -> Command:
    """A replica that is a process, with a log."""
    return Command([sys.executable, "-c", SERVER])


class TestOperatorClusters(ProviderContract):
    @pytest.fixture
    async def provider(self, operator: Operator) -> Provider:
        return operator.provider()

    @pytest.fixture
    async def restart(self, operator: Operator) -> Restart:
        async def again() -> Provider:
            return operator.provider()

        return again

    @pytest.fixture
    async def plan(self, operator: Operator, request: pytest.FixtureRequest) -> RevisionPlan:
        if "logs" in request.node.name:
            operator.east.run_pods_with(talkative)
        return await plan_on(operator.provider())

    @pytest.fixture
    async def plan_without_room(self, operator: Operator) -> RevisionPlan:
        large = replace(SMALL, resources=Resources(cpu_request=500, cpu_limit=500))
        return await plan_on(operator.provider(QUOTA_CPUS="none"), workload=large)

    @pytest.fixture
    def credentials(self, operator: Operator) -> Credentials | None:
        return operator.provider().operator_accounts()["east"]

    async def test_no_room_is_no_capacity_and_leaves_nothing(
        self, provider: Provider, plan_without_room: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        """A cluster takes what it has no room for, and says so at its pods. So `observe` tells of it."""
        assert isinstance(provider, OperatorClusters)
        handle = await provider.create(plan_without_room, name, credentials)
        seen = await until_trouble(provider, handle.name, credentials)
        assert seen.trouble is Trouble.NO_CAPACITY
        await until_absent(provider, handle, credentials, self.absent_within)
        assert await provider.find(name, credentials) is None
        assert await self._owned(provider, credentials, name) == []

    async def test_becomes_ready_at_a_url_that_answers(
        self, provider: Provider, plan: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        """As in the contract, with what `Access` says goes with each request."""
        handle = await provider.create(plan, name, credentials)
        seen = await until_ready(provider, handle, credentials, self.ready_within)
        assert credentials is not None
        assert seen.access.authority is not None
        assert seen.access.bearer is not None
        tls = ssl.create_default_context(cadata=credentials.values[seen.access.authority])
        bearer = {"Authorization": f"Bearer {credentials.values[seen.access.bearer]}"}
        async with httpx.AsyncClient(verify=tls, headers=bearer) as client:
            for replica in seen.replicas:
                answer = await client.get(f"{replica.url}/health")
                assert answer.status_code == 200


async def until_trouble(
    provider: OperatorClusters, name: str, credentials: Credentials | None
) -> Observation:
    """As the cluster tells of changes, and at the latest when the patience is over."""
    async with asyncio.timeout(15):
        while True:
            handle = await provider.find(name, credentials)
            assert handle is not None
            seen = await provider.observe(handle, credentials)
            if seen.trouble is not None:
                return seen
            await asyncio.sleep(0.02)


def test_the_provider_is_all_that_the_service_asks_of_one() -> None:
    for port in (Logs, OperatorAccounts, Stop, Wake, Watch):
        assert issubclass(OperatorClusters, port)
    assert not issubclass(OperatorClusters, Clusters), "nobody imports these clusters"
    assert OperatorClusters.credential_fields == {}
    assert OperatorClusters.unsupported.keys() == {Feature.CLUSTER, Feature.SERVERLESS}


# -- organizations -----------------------------------------------------------------------------------------


async def test_each_organization_has_a_namespace_that_is_walled_and_limited(operator: Operator) -> None:
    provider = operator.provider(
        QUOTA_CPUS="8", QUOTA_GPUS="2", QUOTA_STORAGE_GIB="none", NAMESPACE_PREFIX="shared", ENTRANCES="envoy"
    )
    opened = provider.operator_accounts()["east"]
    spaces = set()
    for organization in ("org_a", "org_b"):
        plan = await plan_on(provider, organization=organization)
        handle = await provider.create(plan, ProviderContract.new_name(), opened)
        await until_ready(provider, handle, opened, 20)
        spaces.add(handle.ref["namespace"])
    assert spaces == {"shared-org-a", "shared-org-b"}

    for space in spaces:
        cluster = operator.east
        room = cluster.object("namespaces", space)
        assert room["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
        (limits,) = cluster.objects("limitranges", space)
        assert limits["spec"]["limits"][0]["defaultRequest"] == {"cpu": "500m", "memory": "1Gi"}
        (quota,) = cluster.objects("resourcequotas", space)
        assert quota["spec"]["hard"] == {
            "requests.cpu": "8",
            "requests.memory": "128Gi",
            "requests.nvidia.com/gpu": "2",
            "pods": "100",
        }
        (walls,) = cluster.objects("networkpolicies", space)
        assert walls["spec"]["podSelector"] == {}
        assert walls["spec"]["policyTypes"] == ["Ingress", "Egress"]
        (way_in,) = walls["spec"]["ingress"]
        assert way_in["from"] == [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "envoy"}}}
        ]
        assert len(cluster.objects("pods", space)) == 1
    for handle in [handle async for handle in provider.owned(opened)]:
        await until_absent(provider, handle, opened, 20)
    left = [
        o for s in spaces for kind in ("pods", "services", "secrets") for o in operator.east.objects(kind, s)
    ]
    assert left == []


async def test_a_quota_that_is_used_up_is_told_with_its_cause(operator: Operator, name: str) -> None:
    provider = operator.provider(QUOTA_CPUS="0.75")
    opened = provider.operator_accounts()["east"]
    plan = await plan_on(provider)
    handle = await provider.create(plan, name, opened)
    await until_ready(provider, handle, opened, 20)
    second = ProviderContract.new_name()
    await provider.create(replace(plan, deployment_id="dep_second"), second, opened)
    seen = await until_trouble(provider, second, opened)
    assert seen.trouble is Trouble.NO_CAPACITY
    assert "exceeded quota: moorage, requested: requests.cpu=500m" in (seen.message or "")

    other = ProviderContract.new_name()
    made = await provider.create(await plan_on(provider, organization="org_b"), other, opened)
    await until_ready(provider, made, opened, 20)


async def test_a_queue_is_nothing_that_organizations_share(operator: Operator) -> None:
    provider = operator.provider()
    asked = replace(image(), workload=replace(SMALL, queued=Queued()))
    with pytest.raises(Rejected, match="apart") as raised:
        await provider.offers(asked, provider.operator_accounts()["east"])
    assert "cluster of your own" in (raised.value.advice or "")


async def test_what_a_cluster_cannot_do_is_refused_before_anything_is_placed(operator: Operator) -> None:
    provider = operator.provider()
    operator.east.uninstall("keda")
    scaled = replace(SMALL, autoscale=Autoscale((ScalingTarget(Metric.LATENCY, 100, 95),)))
    asked = replace(image(max_replicas=2), workload=scaled)
    with pytest.raises(Rejected, match="KEDA"):
        await provider.offers(asked, provider.operator_accounts()["east"])
    operator.east.install("keda")


async def test_an_account_that_may_too_little_is_named(operator: Operator) -> None:
    provider = operator.provider()
    operator.west.deny("create", "namespaces")
    opened = provider.operator_accounts()
    assert (await provider.check_credentials(opened["east"])).id == "operator-east"
    with pytest.raises(PermissionMissing, match="cluster west may not create namespaces"):
        await provider.check_credentials(opened["west"])


# -- offers ------------------------------------------------------------------------------------------------


async def test_offers_of_two_clusters_are_told_apart_and_priced_by_the_label(operator: Operator) -> None:
    provider = operator.provider()
    offers = {n: await provider.offers(image(), c) for n, c in provider.operator_accounts().items()}
    (east,), (west,) = offers["east"], offers["west"]
    assert east.id != west.id
    assert (east.provider, west.provider) == ("managed", "managed")
    assert east.price_per_hour == pytest.approx(0.8 * 0.5 / 16)  # half a core of sixteen
    assert west.price_per_hour == pytest.approx(1.6 * 0.5 / 16)
    assert LABEL in east.price_source
    assert east.availability is Availability.HIGH
    assert (east.note or "").startswith("east/cpu: ")
    assert "image" in (east.engines or ())


async def test_a_cluster_without_labels_is_one_group_with_an_estimate(operator: Operator) -> None:
    operator.east.remove_node("node-1")
    provider = operator.provider()
    opened = provider.operator_accounts()["east"]
    with pytest.raises(NoCapacity, match="cluster east has no nodes"):
        await provider.offers(need(1), opened)
    await provider.aclose()

    operator.east.add_node("plain-1")
    operator.east.add_node("plain-2")
    (estimated,) = await operator.provider().offers(image(), opened)
    assert "2 nodes" in (estimated.note or "")
    assert estimated.price_per_hour == pytest.approx(0.5 * 0.022 + 1.073741824 * 0.003, abs=1e-4)
    assert estimated.price_source.startswith("estimate, not a bill")
    (given,) = await operator.provider(PRICE_PER_HOUR="0.07").offers(image(), opened)
    assert given.price_per_hour == 0.07
    assert "MOORAGE_MANAGED_PRICE_PER_HOUR" in given.price_source
