"""The provider keeps the provider contract, on a cluster that behaves."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest

from moorage.domain.cluster import NodeGroup
from moorage.domain.compute import Offer, Requirements
from moorage.ports.provider import Clusters, Credentials, Logs, Provider, RevisionPlan, Stop, Wake, Watch
from moorage.testing.provider_contract import ProviderContract, Restart, until_absent, until_ready
from moorage_kubernetes.cluster_provider import KubernetesProvider
from moorage_kubernetes.testing import Command, StandInCluster, Start

from . import plans
from .conftest import House

GROUP = NodeGroup(
    id="ngp_tests",
    organization_id="org_tests",
    cluster_id="cls_tests",
    name="cpu",
    selector=plans.GROUP,
    discovered=True,
    created_at=datetime(2026, 11, 21, tzinfo=UTC),
    price_per_hour=0.5,
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


def talkative(start: Start) -> Command:
    """A replica that is a process, with a log."""
    return Command([sys.executable, "-c", SERVER])


class WithGroup:
    """As the service asks: it knows the node groups, the provider does not."""

    def __init__(self, provider: KubernetesProvider) -> None:
        self._provider = provider

    def __getattr__(self, name: str) -> object:
        return getattr(self._provider, name)

    async def offers(self, need: Requirements, credentials: Credentials | None) -> Sequence[Offer]:
        return await self._provider.offers(replace(need, node_groups=(GROUP,)), credentials)


class TestKubernetesProvider(ProviderContract):
    @pytest.fixture
    async def provider(self, house: House) -> Provider:
        return WithGroup(house.provider())  # type: ignore[return-value]  # the rest is passed on

    @pytest.fixture
    async def restart(self, house: House) -> Restart:
        async def again() -> Provider:
            return house.provider()

        return again

    @pytest.fixture
    def plan(self, request: pytest.FixtureRequest, stand_in: StandInCluster) -> RevisionPlan:
        if "logs" in request.node.name:
            stand_in.run_pods_with(talkative)
        return plans.plan()

    @pytest.fixture
    def plan_without_room(self, stand_in: StandInCluster) -> RevisionPlan:
        return plans.plan(gpus=1)  # which no node of the group has

    @pytest.fixture
    def credentials(self, house: House) -> Credentials | None:
        return house.credentials

    async def test_no_room_is_no_capacity_and_leaves_nothing(
        self, provider: Provider, plan_without_room: RevisionPlan, name: str, credentials: Credentials | None
    ) -> None:
        """A cluster takes what it has no room for, and says so at its pods. So `observe` tells of it, once
        the patience is over (see `test_failures`), and the engine deletes."""
        handle = await provider.create(plan_without_room, name, credentials)
        seen = await provider.observe(handle, credentials)
        assert seen.trouble is None
        assert seen.targets == ()
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


class TestWatchedProvider(TestKubernetesProvider):
    """The same, while the cluster is watched: what is seen then comes from the kept copy."""

    @pytest.fixture
    async def provider(self, house: House) -> AsyncIterator[Provider]:
        provider = house.provider()

        async def listen() -> None:
            async for _ in provider.watch(house.credentials):
                pass

        listening = asyncio.create_task(listen())
        yield WithGroup(provider)  # type: ignore[misc]  # the rest is passed on
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def test_the_provider_is_all_that_the_service_asks_of_one() -> None:
    for port in (Clusters, Logs, Stop, Wake, Watch):
        assert issubclass(KubernetesProvider, port)
