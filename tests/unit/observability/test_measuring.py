"""What stands for a provider or a store is one, in every respect, and tells of each call exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from moorage.adapters.measuring import measured_provider, measured_store, outcome_of
from moorage.errors import NoCapacity, StaleWrite, StoreUnavailable
from moorage.ports import provider as ports
from moorage.ports.store import Lease
from moorage.ports.telemetry import NoMeters
from moorage.testing.provider import InProcessCompute, InProcessProvider, InProcessSleeper, InProcessVendor
from moorage.testing.store import MemoryStore

OPTIONAL = (
    ports.Logs,
    ports.BearerKeys,
    ports.OperatorAccounts,
    ports.Billing,
    ports.Stop,
    ports.Wake,
    ports.Clusters,
    ports.Watch,
)


class Told(NoMeters):
    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.seconds: list[float] = []

    def called(self, provider: str, operation: str, outcome: str, seconds: float) -> None:
        self.calls.append((provider, operation, outcome))
        self.seconds.append(seconds)

    def stored(self, operation: str, outcome: str, seconds: float) -> None:
        self.calls.append((operation, outcome))
        self.seconds.append(seconds)


class Strange(InProcessProvider):
    """With one call that never ends, and one that has a bug."""

    async def check_credentials(self, credentials: ports.Credentials | None) -> ports.Account:
        await asyncio.Event().wait()
        raise AssertionError

    async def find(self, name: str, credentials: ports.Credentials | None) -> None:
        raise KeyError(name)

    async def watch(self, credentials: ports.Credentials | None) -> AsyncIterator[str]:
        yield "one"


@pytest.mark.parametrize("kind", [InProcessProvider, InProcessSleeper, InProcessVendor, Strange])
def test_it_has_the_same_optional_sides(kind: type[InProcessProvider]) -> None:
    compute = InProcessCompute(name="fake")
    real = kind(compute, token="t" * 8, weak_token="w" * 8) if kind is InProcessVendor else kind(compute)
    stand_in = measured_provider(real, Told())
    for side in OPTIONAL:
        assert isinstance(stand_in, side) == isinstance(real, side), side
    assert stand_in.name == real.name
    assert stand_in.unsupported is real.unsupported
    assert stand_in.credential_fields == real.credential_fields


async def test_each_call_is_told_once_with_what_came_of_it() -> None:
    told = Told()
    compute = InProcessCompute(name="fake")
    provider = measured_provider(Strange(compute), told)
    assert [handle async for handle in provider.owned(None)] == []
    compute.faults.raise_next("owned", NoCapacity("none"))
    with pytest.raises(NoCapacity):
        [handle async for handle in provider.owned(None)]
    with pytest.raises(KeyError):
        await provider.find("x", None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await provider.check_credentials(None)
    assert told.calls == [
        ("fake", "owned", "ok"),
        ("fake", "owned", "no_capacity"),
        ("fake", "find", "bug"),
        ("fake", "check_credentials", "cancelled"),
    ]
    assert told.seconds[-1] >= 0.009
    assert isinstance(provider, ports.Watch)
    assert [name async for name in provider.watch(None)] == ["one"]
    await provider.aclose()
    assert len(told.calls) == 4


async def test_the_stores_reads_and_writes_are_told() -> None:
    told = Told()
    store = measured_store(MemoryStore(), told)
    now = datetime.now(UTC)
    assert await store.claim_deployments(Lease("t", now), now, 5, home=None) == []
    assert await store.organization("org") is None
    await store.commit([])
    assert told.calls == [("claim_deployments", "ok"), ("organization", "ok"), ("commit", "ok")]


def test_classes_of_errors_are_words() -> None:
    assert outcome_of(StoreUnavailable("x")) == "store_unavailable"
    assert outcome_of(StaleWrite("x")) == "stale_write"
    assert outcome_of(asyncio.CancelledError()) == "cancelled"
    assert outcome_of(ZeroDivisionError()) == "bug"
