"""The accounts that an organization may use at once: what it stored, and each of its clusters."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from moorage.adapters.secrets import KeyRing
from moorage.adapters.system import SystemClock
from moorage.credentials import Vault, seal_values
from moorage.domain.identity import ProviderCredential
from moorage.ports.store import Insert, Update
from moorage.testing.store import MemoryStore
from moorage.testing.store_rows import NOW, cluster, credential, node_group

BOX = KeyRing([("k", secrets.token_bytes(32))])


def sealed(number: int, organization: str = "org_a", provider: str = "kubernetes") -> ProviderCredential:
    row = credential(number, organization, provider)
    return replace(row, sealed=seal_values(BOX, row.id, {"token": f"token-{number}"}))


@pytest.fixture
async def store() -> MemoryStore:
    """`crd_1` opens `cls_0001`, `crd_2` opens `cls_0002`, `crd_3` is an account elsewhere; `crd_4` and
    `cls_0004` are another organization's."""
    store = MemoryStore()
    rows = (
        sealed(1),
        sealed(2),
        sealed(3, provider="runpod"),
        sealed(4, "org_b"),
        cluster(1),
        cluster(2),
        cluster(4, "org_b"),
        node_group(1),
        node_group(2, cluster_id="cls_0002"),
        node_group(3, cluster_id="cls_0002"),
        node_group(4, "org_b", "cls_0004"),
    )
    await store.commit([Insert(row) for row in rows])
    return store


@pytest.fixture
def vault(store: MemoryStore) -> Vault:
    return Vault(store, BOX, SystemClock())


async def test_stored_accounts_then_every_cluster_with_its_groups(vault: Vault) -> None:
    found = await vault.accounts("org_a", {"runpod": "crd_3"})
    assert [(a.provider, a.id, a.name) for a in found] == [
        ("runpod", "crd_3", None),
        ("kubernetes", "crd_1", "name-1"),
        ("kubernetes", "crd_2", "name-2"),
    ]
    assert [a.credentials.values["token"] for a in found] == ["token-3", "token-1", "token-2"]
    assert [[g.id for g in a.node_groups] for a in found] == [[], ["ngp_0001"], ["ngp_0002", "ngp_0003"]]
    assert "token-1" not in repr(found)


async def test_one_cluster_alone(vault: Vault) -> None:
    found = await vault.accounts("org_a", {}, cluster="cls_0002")
    assert [(a.id, [g.id for g in a.node_groups]) for a in found] == [("crd_2", ["ngp_0002", "ngp_0003"])]
    assert await vault.accounts("org_a", {}, cluster="cls_0009") == ()


async def test_another_organizations_cluster_is_never_opened(vault: Vault) -> None:
    assert await vault.accounts("org_a", {}, cluster="cls_0004") == ()
    assert [a.id for a in await vault.accounts("org_b", {})] == ["crd_4"]


async def test_what_was_removed_or_cannot_be_opened_is_left_out(vault: Vault, store: MemoryStore) -> None:
    await store.commit(
        [
            Update(replace(cluster(1), removed_at=NOW, version=1)),
            Update(replace(sealed(2), sealed="nonsense", version=1)),
            Update(replace(sealed(3, provider="runpod"), sealed="", removed_at=NOW, version=1)),
        ]
    )
    assert await vault.accounts("org_a", {"runpod": "crd_3"}) == ()


async def test_a_cluster_that_a_deployment_names_as_its_account_is_there_once(vault: Vault) -> None:
    found = await vault.accounts("org_a", {"kubernetes": "crd_1"}, cluster="cls_0001")
    assert [(a.id, a.name) for a in found] == [("crd_1", "name-1")]
