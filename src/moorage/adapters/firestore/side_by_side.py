"""Several calls at the same time, of which the first that fails is what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

Call: TypeAlias = Callable[[], Awaitable[None]]


async def side_by_side(calls: Iterable[Call], at_once: int) -> None:
    """Raises the first error as it is, the others given up: callers know StoreError, and no group of them."""
    gate = asyncio.Semaphore(at_once)
    error: Exception | None = None

    async def passed(call: Call) -> None:
        async with gate:
            await call()

    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(passed(call))
    except ExceptionGroup as failed:
        error = failed.exceptions[0]
    if error is not None:  # outside, or it had the group that holds it as its context
        raise error
