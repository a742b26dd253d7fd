"""Waiting for what a provider sees, and for what a cluster has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from moorage.domain.deployment import Handle
from moorage.domain.observation import Observation
from moorage.ports.provider import Credentials
from moorage_kubernetes.cluster_provider import KubernetesProvider

SECONDS = 15.0


async def until(
    provider: KubernetesProvider,
    handle: Handle,
    credentials: Credentials,
    wanted: Callable[[Observation], object],
    seconds: float = SECONDS,
) -> Observation:
    """Observes until `wanted` is true of what is seen."""
    seen: Observation | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                seen = await provider.observe(handle, credentials)
                if wanted(seen):
                    return seen
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never seen; last: {seen}") from None


def serves(seen: Observation) -> bool:
    return bool(seen.targets)


def troubled(seen: Observation) -> bool:
    return seen.trouble is not None
