"""Every call gives up in time, and a Hub that hangs holds no threads but its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from moorage.adapters.hub import HuggingFaceHub
from moorage.adapters.hub.wire import Wire
from moorage.domain.model import HubModel
from moorage.testing.hub import Fault, HubStandIn

COMMIT = "0" * 40
CALLS: dict[str, Callable[[Wire], Awaitable[object]]] = {
    "info": lambda wire: wire.info("acme/m", None, None),
    "access": lambda wire: wire.check_access("acme/m", None),
    "header": lambda wire: wire.safetensors_header("acme/m", "model.safetensors", COMMIT, None),
    "json": lambda wire: wire.json_object("acme/m", "config.json", COMMIT, None, 1000),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_each_call_gives_up_in_time(hub: HubStandIn, call: Callable[[Wire], Awaitable[object]]) -> None:
    hub.fault = Fault.SLOW
    wire = Wire(hub.url, timeout=0.2, at_once=1)
    async with asyncio.timeout(5):
        with pytest.raises(httpx2.TimeoutException):
            await call(wire)
    wire.close()


async def test_a_hub_that_hangs_leaves_the_other_threads_alone(hub: HubStandIn) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    hub.fault = Fault.SLOW
    client = HuggingFaceHub(hub.url, at_once=2, timeout=30)
    waiting = [asyncio.create_task(client.profile(HubModel(f"acme/{n}"), None)) for n in range(5)]
    await hub.came(2)
    async with asyncio.timeout(5):
        assert await asyncio.to_thread(lambda: "free") == "free"
    assert len(hub.requests) == 2, "no more at once than allowed"
    hub.fault = Fault.NONE
    await asyncio.gather(*waiting, return_exceptions=True)
    await client.aclose()
