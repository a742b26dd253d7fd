from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moorage.gateway.interruption import CallerLeft, Interruption


async def never() -> Any:
    await asyncio.Event().wait()


async def test_the_first_reason_cancels_and_is_cleared() -> None:
    interruption = Interruption(never)
    first = CallerLeft()
    asyncio.get_running_loop().call_soon(interruption.fire, first)
    asyncio.get_running_loop().call_soon(interruption.fire, ValueError())
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(5)
    task = asyncio.current_task()
    assert task is not None
    assert interruption.cleared() is first
    assert task.cancelling() == 0


async def test_a_cancellation_by_others_has_no_reason() -> None:
    found: list[Exception | None] = []

    async def forward() -> None:
        interruption = Interruption(never)
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            found.append(interruption.cleared())
            raise

    task = asyncio.create_task(forward())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert found == [None]


@pytest.mark.parametrize("begin", [0.0, 0.03])
async def test_a_deadline_takes_the_place_of_the_last(begin: float) -> None:
    interruption = Interruption(never)
    interruption.deadline(0.04, lambda: ValueError("earlier"))
    await asyncio.sleep(begin)
    interruption.deadline(0.06, lambda: ValueError("later"))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(5)
    assert str(interruption.cleared()) == "later"


async def test_nothing_fires_when_it_is_over() -> None:
    interruption = Interruption(never)
    interruption.deadline(0.03, CallerLeft)
    interruption.watch_caller()
    interruption.over()
    interruption.fire(CallerLeft())
    await asyncio.sleep(0.06)
    assert interruption.reason is None
