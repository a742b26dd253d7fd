"""A process that claims and finishes what is due in a store until nothing is: `claimer.py URL NAME`.

It waits for a line on stdin, and prints the ids of what it finished as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

from moorage.domain.job import cancelled
from moorage.open_store import open_store
from moorage.ports.store import Lease, Store, Update


async def claims(name: str) -> AsyncIterator[tuple[Lease, datetime]]:
    for turn in count():
        now = datetime.now(UTC)
        yield Lease(f"{name}-{turn}", now + timedelta(minutes=5)), now


async def finish_deployments(store: Store, name: str) -> list[str]:
    done: list[str] = []
    async for lease, now in claims(f"{name}-deployments"):
        rows = await store.claim_deployments(lease, now, 4)
        if not rows:
            break
        await store.commit([Update(replace(row, due_at=None), lease.token, release=True) for row in rows])
        done += [row.id for row in rows]
    return done


async def finish_jobs(store: Store, name: str) -> list[str]:
    done: list[str] = []
    async for lease, now in claims(f"{name}-jobs"):
        wanted = dict.fromkeys(await store.job_queues(now), 3)
        rows = await store.claim_jobs(wanted, lease, now)
        if not rows and not wanted:
            break
        await store.commit([Update(cancelled(row, now), lease.token, release=True) for row in rows])
        done += [row.id for row in rows]
    return done


async def main(url: str, name: str) -> None:
    store = await open_store(url)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    deployments, jobs = await asyncio.gather(finish_deployments(store, name), finish_jobs(store, name))
    await store.aclose()
    print(json.dumps([*deployments, *jobs]), flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2]))
