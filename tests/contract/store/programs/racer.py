"""A process that races others on one database: `racer.py URL NAME INCREMENTS`.

It waits for a line on stdin, then counts `dep_counter` up by compare-and-set while it claims and finishes
whatever else is due, and prints what it did as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from moorage.adapters.sql.store import SqlStore
from moorage.domain.event import Event
from moorage.errors import StaleWrite
from moorage.ports.store import Append, Lease, Store, Update


async def count(store: Store, increments: int) -> int:
    """How often it had to try again."""
    lost = 0
    for _ in range(increments):
        while True:
            row = await store.deployment("dep_counter")
            assert row is not None
            try:
                await store.commit([Update(replace(row, revision=row.revision + 1))])
                break
            except StaleWrite:
                lost += 1
    return lost


async def finish(store: Store, name: str) -> list[str]:
    """Claims until nothing is due. A row finished twice would be an event that already exists."""
    done: list[str] = []
    for turn in range(10**6):
        now = datetime.now(UTC)
        token = f"{name}-{turn}"
        rows = await store.claim_deployments(Lease(token, now + timedelta(minutes=5)), now, 3)
        if not rows:
            break
        for row in rows:
            event = Event("evt_done", row.organization_id, row.id, "deployment.ready", now, name, "done")
            finished = Update(replace(row, due_at=None), lease=token, release=True)
            await store.commit([finished, Append(event)])
            done.append(row.id)
    return done


async def main(url: str, name: str, increments: int) -> None:
    store = await SqlStore.open(url)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    lost, done = await asyncio.gather(count(store, increments), finish(store, name))
    await store.aclose()
    print(json.dumps({"lost": lost, "done": done}), flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
