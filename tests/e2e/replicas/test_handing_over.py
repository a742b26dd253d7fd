"""What one process has in hand goes on in another: at once when it was told to stop, after its lease when it
died."""

from __future__ import annotations

import asyncio
import signal

import pytest

from moorage.testing.hub import Fault

from .conftest import Fleet, until

pytestmark = pytest.mark.timeout(120)


async def test_a_stopped_process_hands_over_at_once(fleet: Fleet) -> None:
    """Its leases would last for ten minutes, so that only what it let go of can be claimed by another one."""
    door, _ = await fleet.start("door", tick_only="true")
    owner = await fleet.owner(door)
    id_ = await fleet.deploy(owner)
    fleet.hub.fault = Fault.SLOW
    seen = len(fleet.hub.requests)
    _, first = await fleet.start("mill", lease_seconds="600")
    await fleet.hub.came(seen + 1)  # the first one holds it, and waits for the Hub
    await fleet.start("weir", lease_seconds="600")
    first.signal(signal.SIGTERM)
    await first.death()
    await fleet.hub.came(seen + 2)
    fleet.hub.fault = Fault.NONE
    assert (await until(owner, id_, "ready", "failed"))["status"] == "ready"
    while fleet.receiver.count().get("ready", 0) == 0:  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.02)
    assert set(fleet.receiver.count().values()) == {1}


async def test_a_killed_process_is_taken_over_after_its_lease(fleet: Fleet) -> None:
    lease = 1.5
    door, _ = await fleet.start("door", tick_only="true")
    owner = await fleet.owner(door)
    id_ = await fleet.deploy(owner)
    fleet.hub.fault = Fault.SLOW
    seen = len(fleet.hub.requests)
    _, first = await fleet.start("mill", lease_seconds=str(lease))
    await fleet.hub.came(seen + 1)
    await fleet.start("weir", lease_seconds=str(lease))
    loop = asyncio.get_running_loop()
    began = loop.time()
    first.kill()
    await fleet.hub.came(seen + 2)
    print(f"\ntaken over {loop.time() - began:.2f} s after the kill, with leases of {lease} s")
    fleet.hub.fault = Fault.NONE
    assert (await until(owner, id_, "ready", "failed"))["status"] == "ready"
