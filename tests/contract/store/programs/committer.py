"""A process that commits until it is killed: `committer.py URL PREFIX`. Prints each id once it is durable."""

from __future__ import annotations

import asyncio
import itertools
import sys
from dataclasses import replace

from moorage.adapters.sql.store import SqlStore
from moorage.ports.store import Append, Insert
from moorage.testing.store_rows import delivery, deployment, event


async def main(url: str, prefix: str) -> None:
    store = await SqlStore.open(url)
    numbers = itertools.count()

    async def work() -> None:
        for number in numbers:
            id_ = f"{prefix}{number:06d}"
            row = replace(deployment(number), id=f"dep_{id_}", name=f"name-{id_}")
            message = replace(delivery(number), id=f"msg_{id_}")
            await store.commit([Insert(row), Append(event(1, row.id)), Insert(message)])
            print(id_, flush=True)

    await asyncio.gather(*(work() for _ in range(8)))


asyncio.run(main(sys.argv[1], sys.argv[2]))
