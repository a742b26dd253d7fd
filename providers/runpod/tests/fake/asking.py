"""Requests that many tests of the fake send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx

Json = dict[str, Any]  # Any: JSON of the wire

CREATE: Json = {
    "name": "painter",
    "type": "QUEUE",
    "image": "acme/worker:1",
    "gpu": {"pools": ["AMPERE_24"], "count": 1},
    "workers": {"min": 0, "max": 3, "idleTimeout": 5},
    "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
    "timeout": 600000,
}
BALANCED: Json = {
    **CREATE,
    "type": "LOAD_BALANCER",
    "scaling": {"type": "REQUEST_COUNT", "requestCount": 4},
}


async def create(client: httpx.AsyncClient, body: Json = CREATE, **changed: Any) -> Json:
    """A new endpoint, as RunPod tells it."""
    answer = await client.post("/v2/serverless", json={**body, **changed})
    assert answer.status_code == 201, answer.text
    told: Json = answer.json()
    return told


async def workers(client: httpx.AsyncClient, endpoint: Json) -> Json:
    answer = await client.get(f"/v2/serverless/{endpoint['id']}/workers")
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


async def statuses(client: httpx.AsyncClient, endpoint: Json) -> list[str]:
    return sorted(w["status"] for w in (await workers(client, endpoint))["workers"])


async def until_statuses(client: httpx.AsyncClient, endpoint: Json, *wanted: str) -> None:
    async with asyncio.timeout(15):
        while True:
            if await statuses(client, endpoint) == sorted(wanted):
                return
            await asyncio.sleep(0.02)


async def until(look: Callable[[], bool], seconds: float = 15) -> None:
    """For what gives no sign: processes of another program."""
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, "it never became true"
        await asyncio.sleep(0.02)
