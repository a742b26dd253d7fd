"""The engine against a provider that fails in every way it can, on a real clock with short waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from moorage.domain.deployment import Deployment, Phase
from moorage.domain.naming import ExternalName
from moorage.errors import (
    HubUnavailable,
    ModelGated,
    QuotaExceeded,
    Rejected,
    Retry,
    StaleWrite,
    Unauthorized,
)
from moorage.ports.provider import RevisionPlan
from moorage.ports.store import Update
from moorage.testing.provider import InProcessSleeper

from .conftest import World


async def test_a_model_becomes_ready_on_the_cheapest_offer(world: World) -> None:
    async with world.driven():
        ready = await world.until(await world.deploy(), Phase.READY)
    assert ready.status.attempt is not None
    assert ready.status.attempt.rung.offer.id == "cheap"
    assert ready.status.targets
    assert await world.happened(ready.id) == [
        "selecting_gpu",
        "creating_endpoint",
        "loading_model",
        "ready",
    ]


async def test_no_capacity_falls_to_the_next_offer_and_is_remembered_for_others(world: World) -> None:
    world.compute.faults.no_capacity.add("cheap")
    async with world.driven():
        first = await world.until(await world.deploy(), Phase.READY)
        second = await world.until(await world.deploy(), Phase.READY)
    assert first.status.attempt is not None
    assert first.status.attempt.rung.offer.id == "dear"
    assert "capacity_fallback" in await world.happened(first.id)
    assert "capacity_fallback" not in await world.happened(second.id), "others do not try it first"


async def test_capacity_that_shows_only_after_creation_is_cleaned_up_first(world: World) -> None:
    world.compute.faults.throttled.add("cheap")
    async with world.driven():
        ready = await world.until(await world.deploy(), Phase.READY)
    first = str(ExternalName(ready.id, 1, 1))
    assert world.compute.deletes[first] == 1
    assert list(world.compute.endpoints) == [str(ExternalName(ready.id, 1, 2))]


async def test_capacity_that_was_seen_missing_is_remembered_for_others(world: World) -> None:
    world.compute.faults.throttled.add("cheap")
    async with world.driven():
        await world.until(await world.deploy(), Phase.READY)
        second = await world.until(await world.deploy(), Phase.READY)
    assert second.status.attempts == 1


async def test_no_capacity_anywhere_fails_at_the_deadline_with_the_whole_story(world: World) -> None:
    world.compute.faults.no_capacity |= {"cheap", "dear"}
    async with world.driven():
        failed = await world.until(await world.deploy(capacity_deadline_seconds=0.3), Phase.FAILED)
    assert failed.status.failure is not None
    assert failed.status.failure.code == "no_capacity"
    assert "no room" in failed.status.failure.detail
    assert failed.status.failure.advice
    assert not world.compute.endpoints


async def test_a_lost_answer_makes_no_second_endpoint(world: World) -> None:
    world.compute.faults.lose_next("create", 2)
    async with world.driven():
        ready = await world.until(await world.deploy(), Phase.READY)
    assert world.compute.creates == {str(ExternalName(ready.id, 1, 1)): 1}


async def test_passing_trouble_is_tried_again_and_told_once(world: World) -> None:
    world.hub.problems = [HubUnavailable("the Hub is down", retry_after=0.01)] * 3
    world.compute.faults.raise_next("create", Retry("busy", after=0.01), 3)
    async with world.driven():
        ready = await world.until(await world.deploy(), Phase.READY)
    happened = await world.happened(ready.id)
    assert happened.count("setback") == 2, "one for the Hub, one for the provider"
    assert ready.status.setbacks == 0


async def test_what_the_hub_refuses_for_good_fails_with_its_code(world: World) -> None:
    world.hub.problems = [ModelGated("acme/m is gated", advice="ask its owner for access")]
    async with world.driven():
        failed = await world.until(await world.deploy(), Phase.FAILED)
    assert failed.status.failure is not None
    assert (failed.status.failure.code, failed.status.failure.advice) == (
        "model_gated",
        "ask its owner for access",
    )


async def test_what_the_provider_rejects_is_a_failure_with_its_cause(world: World) -> None:
    world.compute.faults.raise_next("create", Rejected("the image is not allowed here"))
    async with world.driven():
        failed = await world.until(await world.deploy(), Phase.FAILED)
    assert failed.status.failure is not None
    assert "not allowed here" in failed.status.failure.detail


async def test_a_quota_counts_for_all_offers_of_its_provider(world: World) -> None:
    world.compute.faults.raise_next("create", QuotaExceeded("at most 3 workers", limit=3))
    async with world.driven():
        failed = await world.until(await world.deploy(), Phase.FAILED)
    assert failed.status.attempts == 1
    assert failed.status.failure is not None
    assert failed.status.failure.code == "quota_exceeded"
    assert "at most 3 workers" in failed.status.failure.detail
    assert world.compute.endpoints == {}


async def test_a_crash_loop_fails_with_the_last_lines_and_nothing_left(world: World) -> None:
    async with world.driven():
        id_ = await world.deploy()
        await world.until(id_, Phase.READY)
        world.compute.crash(str(ExternalName(id_, 1, 1)), ("loading", "RuntimeError: out of luck"))
        failed = await world.until(id_, Phase.FAILED)
    assert failed.status.failure is not None
    assert failed.status.failure.code == "crash_loop"
    assert "RuntimeError: out of luck" in failed.status.failure.detail
    assert not world.compute.endpoints


async def test_never_ready_fails_after_the_patience(world: World) -> None:
    world.compute.faults.never_ready |= {"cheap", "dear"}
    world.patience = world.patience.__class__(ready_timeout=0.2, loading_look=0.05)
    async with world.driven():
        failed = await world.until(await world.deploy(), Phase.FAILED)
    assert failed.status.failure is not None
    assert failed.status.failure.code == "readiness_timeout"
    assert not world.compute.endpoints


async def test_an_endpoint_that_vanishes_is_made_again(world: World) -> None:
    async with world.driven():
        id_ = await world.deploy()
        await world.until(id_, Phase.READY)
        world.compute.vanish(str(ExternalName(id_, 1, 1)))
        await world.until(id_, Phase.SELECTING_GPU, Phase.CREATING_ENDPOINT, Phase.LOADING_MODEL)
        await world.until(id_, Phase.READY)
    assert list(world.compute.endpoints) == [str(ExternalName(id_, 1, 2))]


async def test_a_deletion_while_creating_wins(world: World) -> None:
    world.compute.faults.slow["create"] = 0.2
    async with world.driven() as engine:
        id_ = await world.deploy()
        await world.until(id_, Phase.CREATING_ENDPOINT)
        await world.delete(id_)
        engine.wake()
        await world.until(id_, Phase.DELETED)
    assert not world.compute.endpoints
    assert "ready" not in await world.happened(id_)


async def test_deleting_stays_until_absence_is_confirmed(world: World) -> None:
    world.compute.faults.still_there = 3
    async with world.driven() as engine:
        id_ = await world.deploy()
        await world.until(id_, Phase.READY)
        await world.delete(id_)
        engine.wake()
        await world.until(id_, Phase.DELETING)
        deleted = await world.until(id_, Phase.DELETED)
    assert world.compute.calls["delete"] == 4
    assert deleted.status.meter.since is None
    assert deleted.status.meter.accrued > 0


async def test_a_delete_that_the_provider_refuses_is_not_forgotten(world: World) -> None:
    async with world.driven() as engine:
        id_ = await world.deploy()
        await world.until(id_, Phase.READY)
        world.compute.faults.raise_next("delete", Rejected("in use"), 2)
        await world.delete(id_)
        engine.wake()
        await world.until(id_, Phase.DELETED)
    assert not world.compute.endpoints


async def test_a_create_that_outlives_its_lease_is_undone(world: World) -> None:
    """The first engine's create is slow and its lease is lost; the deletion by the second is complete before
    the create acts. What it then makes has no owner, and it removes it itself."""
    world.compute.faults.slow["create"] = 0.5
    first, second = world.engine(lease_seconds=1.0), world.engine()
    async with world.driven(first):
        id_ = await world.deploy()
        await world.until(id_, Phase.CREATING_ENDPOINT)
        await asyncio.sleep(0.1)  # the create is under way, and will be for 0.4 s
        taken = world.store._memory.cells["deployment", id_]
        world.store._memory.cells["deployment", id_] = taken.__class__(taken.row, None, taken.due_at)
        await world.delete(id_)
        async with world.driven(second):
            await world.until(id_, Phase.DELETED)
            await asyncio.sleep(0.6)  # the slow create acts, and is undone
    assert world.compute.creates.total() == 1
    assert not world.compute.endpoints


async def test_the_sweeper_removes_what_nobody_owns_and_says_so(world: World, plan: RevisionPlan) -> None:
    async with world.driven():
        id_ = await world.deploy()
        await world.until(id_, Phase.READY)
    stray = str(ExternalName(id_, 1, 99))
    world.compute.add_stray(stray, plan)
    patient = world.sweeper(grace=60)
    assert await patient.sweep() == 0, "not before the grace is over"
    assert await world.sweeper().sweep() == 1
    assert list(world.compute.endpoints) == [str(ExternalName(id_, 1, 1))], "what is owned stays"
    assert (await world.events(id_))[-1].type == "deployment.orphan_removed"


async def test_what_a_sweep_did_not_list_keeps_its_grace(world: World, plan: RevisionPlan) -> None:
    world.compute.add_stray(str(ExternalName(world.new_id("dep"), 1, 1)), plan)
    sweeper = world.sweeper(grace=0.05)
    assert await sweeper.sweep() == 0
    assert await sweeper.sweep([]) == 0, "another duty, of other providers"
    world.compute.faults.raise_next("owned", Retry("away"))
    assert await sweeper.sweep() == 0
    await asyncio.sleep(0.06)
    assert await sweeper.sweep() == 1


async def test_the_sweeper_leaves_alone_what_is_not_of_our_making(world: World, plan: RevisionPlan) -> None:
    world.compute.add_stray("somebody-elses", plan)
    assert await world.sweeper().sweep() == 0
    assert list(world.compute.endpoints) == ["somebody-elses"]


async def test_credentials_that_are_refused_for_a_while_tear_nothing_down(world: World) -> None:
    async with world.driven():
        id_ = await world.deploy()
        ready = await world.until(id_, Phase.READY)
        world.compute.faults.raise_next("observe", Unauthorized("the key is refused"), 2)
        async with asyncio.timeout(10):
            while "setback" not in await world.happened(id_):
                await world.applied.wait()
                world.applied.clear()
        assert (await world.read(id_)).status.phase is Phase.READY
    assert list(world.compute.endpoints) == [str(ExternalName(ready.id, 1, 1))]


async def write(world: World, deployment_id: str, wanted: Callable[[Deployment], Deployment]) -> None:
    """What its owner wants; the engine may write meanwhile."""
    while True:
        found = await world.read(deployment_id)
        try:
            await world.store.commit([Update(replace(wanted(found), due_at=world.clock.now()))])
        except StaleWrite:
            continue
        return


async def wish(world: World, deployment_id: str, **spec: object) -> None:
    """Its owner wants its spec otherwise."""

    def changed(found: Deployment) -> Deployment:
        wanted = replace(found.spec, **spec)  # type: ignore[arg-type]  # fields by name
        return replace(found, spec=wanted, generation=found.generation + 1)

    await write(world, deployment_id, changed)


@pytest.mark.parametrize("keeps", [True, False], ids=["the endpoint stays", "it is made again"])
async def test_stopped_and_started_again(world: World, keeps: bool) -> None:
    if keeps:
        world.provider = InProcessSleeper(world.compute)
    async with world.driven() as engine:
        id_ = await world.deploy()
        await world.until(id_, Phase.READY)
        await wish(world, id_, stopped=True)
        engine.wake()
        stopped = await world.until(id_, Phase.STOPPED)
        assert stopped.status.meter.per_hour == 0.0
        assert [e.replicas for e in world.compute.endpoints.values()] == ([0] if keeps else [])
        await wish(world, id_, stopped=False)
        engine.wake()
        again = await world.until(id_, Phase.READY)
    assert again.status.targets
    assert len(world.compute.endpoints) == 1
    assert sum(world.compute.creates.values()) == (1 if keeps else 2)


async def test_scaled_in_place(world: World) -> None:
    async with world.driven() as engine:
        id_ = await world.deploy()
        await world.until(id_, Phase.READY)
        await wish(world, id_, min_replicas=3, max_replicas=3)
        engine.wake()
        async with asyncio.timeout(10):
            while True:
                world.applied.clear()
                if "updated" in await world.happened(id_):
                    break
                await world.applied.wait()
        found = await world.read(id_)
        assert (found.phase, found.status.replicas.ready) == (Phase.READY, 3)
    assert sum(world.compute.creates.values()) == 1


async def test_what_sleeps_is_woken(world: World) -> None:
    world.provider = InProcessSleeper(world.compute)
    async with world.driven() as engine:
        id_ = await world.deploy()
        await world.until(id_, Phase.READY)
        world.compute.sleep(next(iter(world.compute.endpoints)))
        await world.until(id_, Phase.HIBERNATED)
        now = world.clock.now()
        await write(world, id_, lambda found: replace(found, wake_at=now))
        engine.wake()
        await world.until(id_, Phase.READY)
    assert await world.happened(id_) == [
        *("selecting_gpu", "creating_endpoint", "loading_model", "ready", "hibernated", "waking", "ready")
    ]


async def test_an_account_that_cannot_be_opened_tears_down_nothing_that_serves(world: World) -> None:
    async with world.driven() as engine:
        id_ = await world.deploy()
        await world.until(id_, Phase.READY)
        await wish(world, id_, min_replicas=2, max_replicas=2, credentials={"fake": "crd_removed"})
        engine.wake()
        async with asyncio.timeout(10):
            while True:
                world.applied.clear()
                found = await world.read(id_)
                if found.status.setback is not None:
                    break
                await world.applied.wait()
    assert found.phase is Phase.READY
    assert "crd_removed" in found.status.setback
    assert found.status.targets
    assert len(world.compute.endpoints) == 1
