"""Observing as the engine does: what an observation wants remembered is in the handle at the next look."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from moorage.domain.deployment import Handle
from moorage.domain.observation import Observation
from moorage.errors import Retry
from moorage_runpod.serverless import RunPodProvider

from .conftest import CREDENTIALS


def remembered(handle: Handle, seen: Observation) -> Handle:
    return replace(handle, ref={**handle.ref, **(seen.ref or {})})


async def until(
    provider: RunPodProvider,
    handle: Handle,
    holds: Callable[[Observation], bool],
    *,
    seconds: float = 10,
    fail_on_trouble: bool = True,
) -> tuple[Observation, Handle]:
    """Looks until it holds; a Retry is waited for, as the engine would."""
    end = time.monotonic() + seconds
    while True:
        seen, wait = await _look(provider, handle)
        if seen is not None:
            handle = remembered(handle, seen)
            if holds(seen):
                return seen, handle
            assert seen.trouble is None or not fail_on_trouble, seen
        assert time.monotonic() < end, seen
        await asyncio.sleep(wait)


async def _look(provider: RunPodProvider, handle: Handle) -> tuple[Observation | None, float]:
    """(what was seen, seconds until the next look)"""
    try:
        return await provider.observe(handle, CREDENTIALS), 0.01
    except Retry as error:
        return None, min(error.after, 0.05)


async def until_ready(provider: RunPodProvider, handle: Handle) -> tuple[Observation, Handle]:
    return await until(provider, handle, lambda seen: bool(seen.targets))


async def until_trouble(provider: RunPodProvider, handle: Handle) -> Observation:
    seen, _ = await until(provider, handle, lambda seen: seen.trouble is not None, fail_on_trouble=False)
    return seen
