"""What the engine writes: as little as tells all, and never so much at once that requests wait behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime

import pytest

from moorage.domain.deployment import Phase
from moorage.domain.naming import ExternalName
from moorage.engine.drive import WRITES_AT_ONCE
from moorage.ports.store import DeliveryFilter, Update, Write

from .conftest import World


async def test_each_webhook_shows_the_deployment_as_it_was_when_it_happened(world: World) -> None:
    """Also when two things that happened were stored in one write, as a lost offer and the next one are."""
    world.compute.faults.throttled.add("cheap")
    async with world.driven():
        id_ = await world.deploy(webhook_url="https://receiver.example/")
        await world.until(id_, Phase.READY)
    page = await world.store.deliveries("org", DeliveryFilter(subject_id=id_), None, 100)
    told = [json.loads(delivery.payload) for delivery in reversed(page.items)]
    shown = [
        (message["type"].removeprefix("deployment."), message["data"]["status"])
        for message in told
        if message["type"] != "deployment.capacity_fallback"
    ]
    assert len(shown) == 7, "two rounds of four phases, of which the first did not get to ready"
    assert all(happened == status for happened, status in shown)


async def test_a_plain_run_to_ready_takes_four_writes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[Update] = []
    commit = world.store.commit

    async def counted(writes: Sequence[Write]) -> None:
        updates.extend(write for write in writes if isinstance(write, Update))
        await commit(writes)

    monkeypatch.setattr(world.store, "commit", counted)
    async with world.driven():
        await world.until(await world.deploy(), Phase.READY)
    ready = next(i for i, update in enumerate(updates) if getattr(update.row, "phase", None) is Phase.READY)
    assert ready + 1 == 4, "the profile; place and intent; the endpoint; what it answers"


async def test_many_deployments_write_a_few_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = most = 0
    commit = world.store.commit

    async def slow(writes: Sequence[Write]) -> None:
        nonlocal under_way, most
        if not any(isinstance(write, Update) for write in writes):
            await commit(writes)
            return
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.002)
        await commit(writes)
        under_way -= 1

    monkeypatch.setattr(world.store, "commit", slow)
    async with world.driven() as engine:
        ids = [await world.deploy() for _ in range(4 * WRITES_AT_ONCE)]
        engine.wake()
        for id_ in ids:
            await world.until(id_, Phase.READY)
    assert most == WRITES_AT_ONCE


async def test_signals_that_come_together_are_stored_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[Sequence[str]] = []
    wake = world.store.wake

    async def noted(deployment_ids: Sequence[str], now: datetime) -> None:
        stored.append(deployment_ids)
        await wake(deployment_ids, now)

    async with world.driven():
        ids = [await world.deploy() for _ in range(50)]
        for id_ in ids:
            await world.until(id_, Phase.READY)
        monkeypatch.setattr(world.store, "wake", noted)
        for id_ in ids:
            world.compute.crash(str(ExternalName(id_, 1, 1)))
        for id_ in ids:
            await world.until(id_, Phase.FAILED)
    assert set(ids) <= {id_ for batch in stored for id_ in batch}
    assert max(len(batch) for batch in stored) == len(ids)
