"""A process is killed in the middle of sending: another sends again, under the same message id."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

from moorage.adapters.sql.store import SqlStore
from moorage.domain.delivery import DeliveryState
from moorage.domain.webhook_signature import seal_context

PROGRAM = Path(__file__).with_name("outbox_process.py")


async def start(url: str, lease: float) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, str(PROGRAM), url, str(lease))


async def test_killed_while_sending(
    world: Any, receive: Callable[..., Awaitable[Any]], tmp_path: Path
) -> None:
    answers = iter([None, 204])

    async def first_hangs(_: object) -> web.Response:
        status = next(answers)
        if status is None:
            await asyncio.sleep(30)
        return web.Response(status=status or 500)

    url = f"sqlite:///{tmp_path}/moorage.db"
    world.store = await SqlStore.open(url)
    receiver = await receive(first_hangs)
    [delivery] = await world.enqueue(receiver.url)
    first = await start(url, lease=1)
    second = None
    try:
        await receiver.until(1, seconds=30)
        first.send_signal(signal.SIGKILL)
        await first.wait()
        second = await start(url, lease=1)
        after = await world.settled(delivery, seconds=30)
    finally:
        for process in (first, second):
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()
    assert after.state is DeliveryState.DELIVERED
    assert receiver.ids == [delivery.id] * 2
    stored = await world.store.webhook_secret("org_1")
    secret = world.ring.open(stored.sealed, seal_context("org_1")).decode()
    for message in receiver.messages:
        Webhook(secret).verify(message.body, message.headers)
    await world.store.aclose()
