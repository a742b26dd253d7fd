"""A loop that is stuck or dying shows; one that waits for a known moment, or is asked to work, does not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from moorage.domain.deployment import Phase
from moorage.engine.census import Census
from moorage.engine.loop import Engine, EngineSettings
from moorage.engine.pulse import DYING, GRACE, Pulse
from tests.unit.engine.conftest import World

NOW = datetime(2026, 11, 21, tzinfo=UTC)


class Watch:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_one_that_was_never_begun_has_no_trouble() -> None:
    assert Pulse(Watch()).trouble() is None


def test_one_that_goes_round_has_no_trouble_and_one_that_stopped_has() -> None:
    watch = Watch()
    pulse = Pulse(watch)
    pulse.began()
    for _ in range(10):
        watch.seconds += GRACE / 2
        assert pulse.trouble() is None
        pulse.round()
    watch.seconds += GRACE + 1
    assert "has not come round" in str(pulse.trouble())
    pulse.round()
    assert pulse.trouble() is None


def test_one_that_sleeps_is_late_only_after_its_moment() -> None:
    watch = Watch()
    pulse = Pulse(watch)
    pulse.began()
    pulse.sleeps(30)
    watch.seconds += 30 + GRACE
    assert pulse.trouble() is None
    watch.seconds += 1
    assert "has not come round" in str(pulse.trouble())


def test_one_that_died_is_troubled_for_a_while_however_well_it_began_again() -> None:
    watch = Watch()
    pulse = Pulse(watch)
    pulse.died()
    pulse.began()
    pulse.round()
    assert "died" in str(pulse.trouble())
    watch.seconds += DYING
    assert pulse.trouble() is None


def test_a_lag_begins_with_the_moment_that_is_known() -> None:
    pulse = Pulse()
    assert pulse.lag(NOW) == 0
    pulse.behind(NOW + timedelta(seconds=5))
    assert pulse.lag(NOW) == 0
    assert pulse.lag(NOW + timedelta(seconds=8)) == 3
    pulse.behind(None)
    assert pulse.lag(NOW + timedelta(seconds=8)) == 0


async def test_an_engine_with_its_hands_full_tells_how_late_it_is() -> None:
    world = World()
    world.compute.faults.slow["create"] = 0.5
    engine = world.engine()
    engine = Engine(engine._store, engine._driver, world.clock, EngineSettings(5.0, concurrency=1))
    ids = [await world.deploy() for _ in range(2)]
    running = asyncio.create_task(engine.run())
    try:
        async with asyncio.timeout(10):
            while engine.pulse.lag(world.clock.now()) < 0.3:  # noqa: ASYNC110 - time itself is waited for
                await asyncio.sleep(0.01)
            assert engine.in_hand == engine.places == 1
            assert engine.pulse.trouble() is None
            world.compute.faults.slow.clear()
            for id_ in ids:
                while (await world.read(id_)).phase is not Phase.READY:
                    await world.applied.wait()
                    world.applied.clear()
            while engine.pulse.lag(world.clock.now()):  # noqa: ASYNC110 - the next round says that nothing is due
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_census_follows_versions_and_forgets_what_is_over() -> None:
    world, census = World(), Census()
    found = await world.read(await world.deploy())
    census.heard(found)
    assert census.counts()[Phase.VALIDATING] == 1
    later = found.status.phase_since + timedelta(seconds=7)
    assert census.longest(later)[Phase.VALIDATING] == 7
    ready = replace(found, version=9, status=replace(found.status, phase=Phase.READY, phase_since=later))
    census.heard(ready)
    census.heard(found)  # read before, told late
    assert (census.counts()[Phase.READY], census.counts()[Phase.VALIDATING]) == (1, 0)
    asked = later + timedelta(seconds=1)
    census.heard(replace(ready, version=10, deleted_at=asked))
    assert census.longest(asked + timedelta(seconds=4))[Phase.DELETING] == 4
    over = replace(ready.status, phase=Phase.DELETED)
    census.heard(replace(ready, version=11, status=over))
    assert sum(census.counts().values()) == 0
    assert Phase.DELETED not in census.counts()
