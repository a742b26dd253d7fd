"""The clusters service where several things happen at once, and where the provider does not answer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from moorage.adapters.registry import catalog
from moorage.adapters.secrets import KeyRing
from moorage.adapters.system import SystemClock, SystemIds
from moorage.credentials import Vault
from moorage.domain.cluster import Cluster, FoundGroup, NodeGroup
from moorage.domain.compute import Estimate, PlacementPolicy, Rung
from moorage.domain.deployment import Attempt, Deployment, Phase
from moorage.domain.identity import Principal, Role
from moorage.domain.node_groups import NewNodeGroup
from moorage.errors import Clash, Invalid, NotFound, Unavailable
from moorage.ports.provider import Provider
from moorage.ports.store import Insert, Update
from moorage.services import cluster_access
from moorage.services.cluster_access import ClusterAccess
from moorage.services.clusters import ClusterSurroundings, Imported, ImportedClusters, uses
from moorage.services.idempotency import Idempotency
from moorage.services.node_groups import NodeGroups
from moorage.testing.clusters import OPENS, FakeCluster, InProcessClusters
from moorage.testing.provider import InProcessProvider, cpu_offer
from moorage.testing.store import MemoryStore
from moorage.testing.store_rows import NOW, cluster, deployment

SERVER = "https://k8s.example"
GIVEN = {"server": SERVER, "token": OPENS}
OWNER = Principal("usr_1", "org_a", Role.OWNER)
POOL = {"pool": "gpu"}


class World:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.provider = InProcessClusters()
        self.provider.clusters[SERVER] = FakeCluster()
        self.changes = 0
        box, clock, new_id = KeyRing([("k", secrets.token_bytes(32))]), SystemClock(), SystemIds()
        self.vault = Vault(self.store, box, clock)
        idempotency = Idempotency(self.store, box, clock)
        providers: Mapping[str, Provider] = {"fake": InProcessProvider(), "clusters": self.provider}
        self.clusters = ImportedClusters(
            ClusterSurroundings(
                self.store,
                ClusterAccess(providers, clock),
                self.vault,
                box,
                clock,
                new_id,
                idempotency,
                catalog(),
                self.changed,
            )
        )
        self.groups = NodeGroups(self.store, clock, new_id, idempotency)

    def changed(self) -> None:
        self.changes += 1

    @property
    def cluster(self) -> FakeCluster:
        return self.provider.clusters[SERVER]

    def found(self, *groups: FoundGroup) -> None:
        self.cluster.report = replace(self.cluster.report, node_groups=groups)

    async def imported(self, name: str = "production") -> Cluster:
        made: list[Cluster] = []

        def render(found: Imported) -> bytes:
            made.append(found.cluster)
            return b"{}"

        await self.clusters.create(OWNER, name, GIVEN, None, "f", render)
        return made[-1]

    async def declared(self, id_: str, selector: Mapping[str, str] | None = None) -> NodeGroup:
        made: list[NodeGroup] = []

        def render(group: NodeGroup, _: Cluster) -> bytes:
            made.append(group)
            return b"{}"

        new = NewNodeGroup("ours", selector or POOL, price_per_hour=1.0)
        await self.groups.create(OWNER, id_, new, None, "f", render)
        return made[-1]


@pytest.fixture
def world() -> World:
    return World()


async def all_of(*awaitables: Any) -> list[Any]:
    return list(await asyncio.gather(*awaitables, return_exceptions=True))


async def test_of_imports_under_one_name_one_is_there_and_one_account(world: World) -> None:
    outcomes = await all_of(*(world.imported() for _ in range(5)))
    assert [type(outcome) for outcome in outcomes].count(Clash) == 4
    assert {outcome.code for outcome in outcomes if isinstance(outcome, Clash)} == {"name_taken"}
    assert len(await world.store.clusters("org_a")) == 1
    assert len(await world.store.provider_credentials()) == 1
    assert world.changes == 1


async def test_checks_at_once_find_each_group_once(world: World) -> None:
    made = await world.imported()
    world.found(FoundGroup("gpu", POOL, 1), FoundGroup("cpu", {"pool": "cpu"}, 1))
    outcomes = await all_of(*(world.clusters.check(OWNER, made.id) for _ in range(5)))
    assert {len(outcome.groups) for outcome in outcomes} == {2}
    assert len(await world.store.node_groups("org_a", made.id)) == 2


async def test_a_group_declared_while_a_check_finds_it_stays_declared(world: World) -> None:
    made = await world.imported()
    world.found(FoundGroup("gpu", POOL, 1))
    for _ in range(10):
        await all_of(world.clusters.check(OWNER, made.id), world.declared(made.id))
        await world.clusters.check(OWNER, made.id)
        (group,) = await world.store.node_groups("org_a", made.id)
        if not group.discovered:  # else the declaration was refused for the check that came first
            break
        await world.declared(made.id)
    (group,) = await world.store.node_groups("org_a", made.id)
    assert (group.discovered, group.name, group.price_per_hour) == (False, "ours", 1.0)


async def test_a_declared_group_that_was_removed_is_discovered_again(world: World) -> None:
    made = await world.imported()
    own = await world.declared(made.id)
    await world.groups.remove(OWNER, made.id, own.id)
    world.found(FoundGroup("gpu", POOL, 1))
    (group,) = (await world.clusters.check(OWNER, made.id)).groups
    assert (group.id, group.discovered, group.price_per_hour) == (own.id, True, None)
    again = await world.declared(made.id)
    assert (again.id, again.discovered) == (own.id, False)


async def test_removing_takes_account_and_groups_along(world: World) -> None:
    made = await world.imported()
    await world.declared(made.id)
    await world.vault.open(made.credential_id)
    await all_of(*(world.clusters.remove(OWNER, made.id) for _ in range(3)))
    assert await world.store.clusters("org_a") == []
    assert await world.store.node_groups("org_a") == []
    (credential,) = await world.store.provider_credentials()
    assert credential.sealed == ""
    assert await world.vault.accounts("org_a", {}) == (), "nor is it remembered"
    types = [event.type for event in await world.store.events(made.id, None, 10)]
    assert types == ["cluster.imported", "node_group.declared", "cluster.removed"]
    assert world.changes == 2
    with pytest.raises(NotFound):
        await world.clusters.check(OWNER, made.id)


def placed(account: str | None, policy: PlacementPolicy | None = None) -> Deployment:
    row, policy = deployment(), policy or PlacementPolicy()
    offer = replace(cpu_offer(provider="clusters"), account=account)
    attempt = Attempt(1, Rung(offer, "onnx", Estimate(1, 1.0, ())), "mrg-x", NOW)
    return replace(row, spec=replace(row.spec, policy=policy), status=replace(row.status, attempt=attempt))


def test_what_uses_a_cluster() -> None:
    ours = cluster()
    on_it = placed(ours.credential_id)
    assert uses(on_it, ours)
    assert uses(placed(None, PlacementPolicy(cluster=ours.id)), ours)
    rungs = () if on_it.status.attempt is None else (on_it.status.attempt.rung,)
    about_to = replace(on_it, status=replace(on_it.status, attempt=None, ladder=rungs))
    assert uses(about_to, ours)
    assert not uses(placed("crd_other"), ours)
    assert not uses(placed(None), ours)
    elsewhere = placed("crd_other")
    next_there = replace(elsewhere, status=replace(elsewhere.status, ladder=rungs))
    assert uses(next_there, ours), "it is there should the one it is on be lost"


async def test_a_cluster_stays_until_the_last_deployment_of_many_is_over(world: World) -> None:
    made = await world.imported()
    rows = [replace(deployment(n), due_at=None) for n in range(1, 450)]
    user = replace(placed(made.credential_id), id="dep_0000", name="user", created_at=NOW)
    await world.store.commit([Insert(row) for row in (*rows, user)])
    with pytest.raises(Clash) as caught:
        await world.clusters.remove(OWNER, made.id)
    assert caught.value.code == "cluster_in_use"
    assert "'user'" in caught.value.detail
    over = replace(user, status=replace(user.status, phase=Phase.DELETED), version=1)
    await world.store.commit([Update(over)])
    await world.clusters.remove(OWNER, made.id)


async def test_a_node_group_stays_while_a_deployment_names_it(world: World) -> None:
    made = await world.imported()
    own = await world.declared(made.id)
    policy = PlacementPolicy(cluster=made.id, node_groups=(own.id,))
    await world.store.commit([Insert(placed(made.credential_id, policy))])
    with pytest.raises(Clash) as caught:
        await world.groups.remove(OWNER, made.id, own.id)
    assert caught.value.code == "node_group_in_use"


@pytest.mark.parametrize("call", ["check_credentials", "check"])
async def test_a_cluster_that_hangs_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(cluster_access, "CHECK_SECONDS", 0.05)
    hanging = asyncio.Event()

    async def hang(*_: object) -> Any:
        await hanging.wait()

    monkeypatch.setattr(world.provider, call, hang)
    made = await world.imported()
    assert made.report is not None
    assert "did not answer" in (made.report.problem or "")


async def test_an_account_that_no_key_opens_is_the_reports_problem(world: World) -> None:
    made = await world.imported()
    world.found(FoundGroup("gpu", POOL, 1))
    (credential,) = await world.store.provider_credentials()
    await world.store.commit([Update(replace(credential, sealed="nonsense"))])
    report = (await world.clusters.check(OWNER, made.id)).cluster.report
    assert report is not None
    assert "cannot be opened" in (report.problem or "")


async def test_without_the_provider_nothing_is_asked(world: World) -> None:
    access = ClusterAccess({"fake": InProcessProvider()}, SystemClock())
    with pytest.raises(Unavailable) as caught:
        access.provider()
    assert caught.value.code == "no_cluster_provider"


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({}, ["body.kubeconfig"]),
        ({"namespace": "x"}, ["body.kubeconfig"]),
        ({"kubeconfig": "{}", "token": "x"}, ["body.kubeconfig", "body.token"]),
    ],
)
def test_one_way_in_is_given(world: World, given: dict[str, str], fields: list[str]) -> None:
    access = ClusterAccess({"clusters": world.provider}, SystemClock())
    with pytest.raises(Invalid) as caught:
        access.read(access.provider(), given)
    assert [error.field for error in caught.value.errors] == fields
    assert {error.rule for error in caught.value.errors} == {"exactly_one_access"}
