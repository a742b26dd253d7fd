"""Several processes on one database, and processes that die: what only real processes can show."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from moorage.adapters.sql.store import SqlStore
from moorage.ports.store import DeliveryFilter, DeploymentFilter, Insert, Write
from moorage.testing.postgres import PostgresServer
from moorage.testing.store_rows import deployment

PROGRAMS = Path(__file__).parent / "programs"
INCREMENTS = 60
ROWS = 150


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'moorage.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


async def start(program: str, *arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAMS / program), *arguments, stdin=pipe, stdout=pipe
    )


async def read_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def race(url: str, name: str, gate: asyncio.Barrier) -> dict[str, list[str]]:
    process = await start("racer.py", url, name, str(INCREMENTS))
    assert await read_line(process) == "ready"
    await gate.wait()
    output, _ = await process.communicate(b"go\n")
    assert process.returncode == 0
    result: dict[str, list[str]] = json.loads(output)
    return result


async def test_two_processes_never_finish_one_row_twice(url: str) -> None:
    store = await SqlStore.open(url)
    rows: list[Write] = [Insert(deployment(number)) for number in range(ROWS)]
    counter = replace(deployment(ROWS), id="dep_counter", due_at=None)
    await store.commit([*rows, Insert(counter)])
    gate = asyncio.Barrier(2)
    async with asyncio.timeout(60):
        results = await asyncio.gather(race(url, "a", gate), race(url, "b", gate))
    done = Counter(id_ for result in results for id_ in result["done"])
    assert done == {f"dep_{number:04d}": 1 for number in range(ROWS)}
    assert all(result["done"] for result in results), "only one of them ran: nothing was raced"
    counted = await store.deployment("dep_counter")
    assert counted is not None
    assert counted.revision == 1 + 2 * INCREMENTS
    assert counted.version == 1 + 2 * INCREMENTS
    await store.aclose()


async def test_processes_that_start_together_migrate_once(url: str) -> None:
    stores = await asyncio.gather(*(SqlStore.open(url) for _ in range(3)))
    others = [await start("racer.py", url, name, "0") for name in "ab"]
    assert [await read_line(process) for process in others] == ["ready", "ready"]
    for process in others:
        await process.communicate(b"go\n")
        assert process.returncode == 0
    for store in stores:
        await store.aclose()


async def test_acknowledged_commits_survive_sigkill(url: str) -> None:
    """Killed at a random moment while eight tasks commit, five times on one file. What was acknowledged is
    there, and what is there is whole. (A kill leaves the disk's cache alone: that a commit also reaches the
    disk is `synchronous = FULL` in SQLite, which another test looks at.)"""
    luck = random.Random(20260301)
    acknowledged: list[str] = []
    for turn in range(5):
        process = await start("committer.py", url, f"k{turn}")
        acknowledged += [await read_line(process) for _ in range(luck.randrange(1, 400))]
        process.kill()
        await process.wait()
        assert process.stdout is not None
        # Of the last line only the part before the kill may be there.
        rest = (await process.stdout.read()).decode()
        acknowledged += rest.split("\n")[:-1]
    assert len(acknowledged) == len(set(acknowledged)) > 5
    store = await SqlStore.open(url)
    for id_ in acknowledged:
        assert await store.deployment(f"dep_{id_}") is not None
    page = await store.deployments("org_a", DeploymentFilter(), None, 10**5)
    assert len(page.items) >= len(acknowledged)
    for row in page.items:
        assert len(await store.events(row.id, None, 2)) == 1
        assert await store.delivery(row.id.replace("dep_", "msg_"), "org_a") is not None
    deliveries = await store.deliveries("org_a", DeliveryFilter(), None, 10**5)
    assert len(deliveries.items) == len(page.items)
    await store.aclose()


async def test_a_process_hears_of_another_ones_write(url: str) -> None:
    store = await SqlStore.open(url)
    async with aclosing(store.changes()) as changes:  # type: ignore[type-var]  # a generator, as all are
        news = asyncio.ensure_future(anext(changes))
        process = await start("committer.py", url, "n")
        try:
            await asyncio.wait_for(news, 30)
        finally:
            process.kill()
            await process.wait()
    page = await store.deployments("org_a", DeploymentFilter(), None, 1)
    assert page.items[0].id.startswith("dep_n")
    await store.aclose()
