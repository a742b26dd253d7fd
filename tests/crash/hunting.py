"""One deployment after the other on a service that is killed at random, at a provider that loses answers."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any  # what a task of asyncio sends and receives

from moorage.testing.killing import KillableService

from .conftest import Receiver
from .test_kills import PHASES, Supervisor, User, everything_is_told


async def one_life(user: User, number: int, rng: random.Random) -> None:
    id_ = await user.create(number)
    if rng.random() < 0.7:
        await user.until(id_, "ready", "failed")
    else:
        await asyncio.sleep(rng.random() * 0.5)
    await user.delete(id_)
    await user.until(id_, "deleted")


async def hunted(
    supervisor: Supervisor,
    service: KillableService,
    user: User,
    receiver: Receiver,
    rng: random.Random,
    *,
    prepare: Callable[[], Awaitable[None]],
    trouble: Callable[[], Coroutine[Any, Any, None]],
    left: Callable[[], Sequence[str]],
) -> int:
    """Lives until the kills are spent; every accepted deployment is deleted in the end, was in each phase
    once at most, and has left nothing; `trouble` goes on beside. Returns how many lives there were."""
    supervising = asyncio.create_task(supervisor.run())
    losing: asyncio.Task[None] | None = None
    try:
        await prepare()
        losing = asyncio.create_task(trouble())
        number = await supervisor.outlived(supervising, lambda number: one_life(user, number, rng))
        await everything_is_told(user, receiver)
        await _everything_is_over(user)
        await _nothing_is_left(left)
    except BaseException:
        print(f"kill points {supervisor.points}")
        print(service.log.read_text()[-6000:] if service.log.exists() else "no log")
        raise
    finally:
        if losing is not None:
            losing.cancel()
        supervising.cancel()
        supervisor.stop()
    return number


async def _everything_is_over(user: User) -> None:
    listed = await user.get("/v1/deployments?limit=200")
    assert {d["deployment_id"] for d in listed["items"]} == set(user.accepted), "accepted is what exists"
    for deployment in listed["items"]:
        assert (deployment["status"], deployment["error"]) == ("deleted", None)
        path = f"/v1/deployments/{deployment['deployment_id']}/events?limit=1000"
        happened = Counter(event["type"] for event in (await user.get(path))["items"])
        for phase in PHASES:
            assert happened[f"deployment.{phase}"] <= 1, f"{phase} happened twice: {happened}"


async def _nothing_is_left(left: Callable[[], Sequence[str]]) -> None:
    deadline = time.monotonic() + 10  # a stale create may still be being undone
    while found := left():
        assert time.monotonic() < deadline, f"still there: {found}"
        await asyncio.sleep(0.05)
