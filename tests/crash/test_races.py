"""Two service processes on one SQLite file, each frozen again and again for longer than its leases last.

A frozen process is the worst holder of a lease: it wakes in the middle of what it did, sure that the row is
its own. Every write it then makes must be refused, and every effect it repeats must find the first.
"""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from moorage.testing.killing import KillableService, Life

from .conftest import Receiver
from .test_kills import User, everything_is_told, nothing_is_left, one_life

pytestmark = pytest.mark.crash

FROZEN_SECONDS = 0.45  # leases last 0.3
USERS = 4
LIVES = 4


async def freeze_in_turn(lives: list[Life], rng: random.Random) -> None:
    while True:
        for life in lives:
            await asyncio.sleep(rng.random() * 0.25)
            life.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(FROZEN_SECONDS)
            finally:
                life.signal(signal.SIGCONT)


@pytest.mark.parametrize("seed", range(3))
async def test_no_transition_happens_twice(
    seed: int, service: KillableService, receiver: Receiver, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    lives = [service.start(), service.start()]
    user = User(service.url, receiver, tmp_path / "locks")
    freezing: asyncio.Task[None] | None = None
    try:
        await user.sign_in()
        freezing = asyncio.create_task(freeze_in_turn(lives, rng))

        async def lives_of(number: int) -> None:
            for life in range(LIVES):
                await one_life(user, number * LIVES + life, rng)

        await asyncio.gather(*(lives_of(number) for number in range(USERS)))
        assert all(life.alive for life in lives), "both have worked to the end"
        await everything_is_told(user, receiver)
        await nothing_is_left(user, receiver, tmp_path)
        log = service.log.read_text()
        assert "engine.lease_lost" in log, "the freezing did what it is for"
    except BaseException:
        print(service.log.read_text()[-6000:])
        raise
    finally:
        if freezing is not None:
            freezing.cancel()
            await asyncio.gather(freezing, return_exceptions=True)
        for life in lives:
            life.kill()
