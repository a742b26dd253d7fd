"""Providers on a stand-in cluster, with proof at the end of each test that all they sent was valid."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

import moorage_kubernetes
from moorage.ports.provider import Credentials
from moorage.testing.provider_contract import ProviderContract, until_absent
from moorage_kubernetes.cluster_provider import KubernetesProvider
from moorage_kubernetes.testing import StandInCluster

from . import plans

LEFT_ALONE = {"namespaces", "serviceaccounts", "events", "nodes"}


@dataclass
class House:
    """Makes providers on one cluster, as one service process after the other would hold them."""

    cluster: StandInCluster
    providers: list[KubernetesProvider] = field(default_factory=list)
    cleans: bool = True  # removes at the end what is left, as proof that it can be

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.cluster.values())

    def provider(self, **environ: str) -> KubernetesProvider:
        environ = {"CALL_SECONDS": "20", **environ}
        made = moorage_kubernetes.provider(plans.config(**environ))
        self.providers.append(made)
        return made

    def left(self) -> dict[str, list[str]]:
        """What is in the namespace, by kind."""
        found = {}
        for resource in self.cluster.world.store.resources():
            if resource.namespaced and resource.plural not in LEFT_ALONE:
                names = [o["metadata"]["name"] for o in self.cluster.objects(resource.kind, plans.NAMESPACE)]
                if names:
                    found[resource.kind] = names
        return found

    async def close(self) -> None:
        self.cluster.faults.clear()
        await self.cluster.come_up()
        self.cluster.allow_all()
        last = self.provider()
        for handle in [handle async for handle in last.owned(self.credentials) if self.cleans]:
            await until_absent(last, handle, self.credentials, 20)
        for provider in self.providers:
            await provider.aclose()
        assert [(r.name, r.refusal) for r in self.cluster.refused] == []


@pytest.fixture
async def stand_in() -> AsyncIterator[StandInCluster]:
    async with StandInCluster(node=False) as running:
        running.add_node("node-1", plans.GROUP)
        yield running


@pytest.fixture
async def house(stand_in: StandInCluster) -> AsyncIterator[House]:
    house = House(stand_in)
    yield house
    await house.close()


@pytest.fixture
def name() -> str:
    return ProviderContract.new_name()
