"""Copying from store to store as an operator does: killed, interrupted, refused, and through every kind of
store and back."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from moorage.copying import COLLECTIONS, NotEqual, TargetInUse, contents, copy
from moorage.errors import AlreadyExists
from moorage.open_store import open_store
from moorage.ports.store import Append, Archive, Collection, Insert, Stored, Update
from moorage.testing import archive_rows
from moorage.testing.archive_rows import everything
from moorage.testing.firestore import MISSING, available, shared_emulator
from moorage.testing.store_rows import after, deployment, event, lease

if TYPE_CHECKING:
    from moorage.open_store import OpenStore
    from moorage.testing.postgres import PostgresServer

COPIER = Path(__file__).parent / "programs" / "copier.py"
CLI = (sys.executable, "-m", "moorage.cli", "store", "copy")
EVENTS = 1200  # three pages


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[OpenStore]:
    store = await open_store(url)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
def new_sqlite(tmp_path: Path) -> Callable[[str], str]:
    return lambda name: f"sqlite:///{tmp_path / name / 'moorage.db'}"


@pytest.fixture
async def source_url(new_sqlite: Callable[[str], str]) -> str:
    """Of a store that has served: of everything a little, several pages of events, rows that are leased."""
    url = new_sqlite("source")
    async with opened(url) as store:
        for collection, rows in everything().items():
            await store.restore(collection, rows)
        for first in range(0, EVENTS, 400):
            numbers = range(first, first + 400)
            await store.restore("event", [Stored(event(n, f"dep_{n % 7:04d}")) for n in numbers])
        await store.commit([Insert(deployment(60)), Append(event(1, "dep_0060"))])
        await store.claim_deployments(lease("held", 3600), after(100), 2)
        await store.claim_duty("sweeper", lease("held", 3600), after(100))
    return url


async def all_contents(store: OpenStore) -> dict[str, Any]:
    return {collection: await contents(store, collection) for collection in COLLECTIONS}


async def killed(source_url: str, target_url: str, pages: int) -> None:
    command = (sys.executable, str(COPIER), source_url, target_url, str(pages))
    process = await asyncio.create_subprocess_exec(*command, env=environ())
    assert await process.wait() == -signal.SIGKILL


def environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")}


@pytest.mark.skipif(not available(), reason=MISSING)
async def test_round_trip_through_every_store(
    source_url: str, new_sqlite: Callable[[str], str], postgres: PostgresServer
) -> None:
    """SQLite → PostgreSQL → Firestore → SQLite."""
    chain = [source_url, postgres.new_database(), shared_emulator().new_database(), new_sqlite("last")]
    async with opened(source_url) as store:
        first = await all_contents(store)
    for source, target in itertools.pairwise(chain):
        async with opened(source) as ours, opened(target) as theirs:
            copied = await copy(ours, theirs)
            assert {each.collection: each.contents for each in copied} == first
            assert await all_contents(theirs) == first
            for collection in COLLECTIONS:
                page = await ours.stored(collection, None, 500)
                assert list(page) == list(await theirs.stored(collection, None, 500))
    async with opened(chain[-1]) as last:
        await _serves(last)


async def _serves(store: OpenStore) -> None:
    """What a service does first on a store that was copied."""
    named = await store.deployment_named("org_a", "once-more")
    assert named is not None
    assert named.id == "dep_0013"
    with pytest.raises(AlreadyExists):
        await store.commit([Insert(replace(deployment(80), name="once-more"))])
    for key in archive_rows.api_keys():
        assert await store.api_key_by_hash(key.hash) == key
    assert {user.username for user in archive_rows.users()} == {"ada", "bo", "grüße"}
    for user in archive_rows.users():
        assert await store.user_named(user.username) == user
    # Leases and duties were left behind: all that is due can be claimed at once, and written.
    now = after(200)
    claimed = await store.claim_deployments(lease("new", 300), now, 50)
    assert {row.id for row in claimed} == {"dep_0001", "dep_0002", "dep_0012", "dep_0013", "dep_0060"}
    assert await store.claim_duty("sweeper", lease("new", 300), now)
    for row in claimed:
        await store.commit([Update(replace(row, due_at=None), lease="new", release=True)])
    assert await store.next_due("deployments", now) is None
    assert len(await store.events("dep_0001", None, 1000)) >= EVENTS // 7


@pytest.fixture(params=["sqlite", "postgresql", "firestore"])
def target_url(request: pytest.FixtureRequest, new_sqlite: Callable[[str], str]) -> str:
    if request.param == "sqlite":
        return new_sqlite("target")
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        return server.new_database()
    if not available():
        pytest.skip(MISSING)
    return shared_emulator().new_database()


async def test_a_copy_that_was_killed_is_completed_by_the_next(source_url: str, target_url: str) -> None:
    """By SIGKILL, amid the events, of which one page was copied."""
    await killed(source_url, target_url, pages=15)
    async with opened(source_url) as source, opened(target_url) as target:
        there = {collection: len(await target.stored(collection, None, 500)) for collection in COLLECTIONS}
        assert there["organization"] == there["user"] == 3
        assert there["event"] == 500
    process = await asyncio.create_subprocess_exec(
        *CLI, source_url, target_url, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ()
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    told = {each["collection"]: each for each in json.loads(out)["collections"]}
    assert told["event"]["written"] == told["event"]["rows"] - 500
    assert sum(each["written"] for each in told.values()) == told["event"]["written"]
    async with opened(source_url) as source, opened(target_url) as target:
        assert await all_contents(source) == await all_contents(target)


async def test_foreign_rows_in_the_target_are_left_as_they_are(source_url: str, target_url: str) -> None:
    async with opened(source_url) as source, opened(target_url) as target:
        await target.commit([Insert(deployment(5)), Append(event(1)), Append(event(1, "dep_0005"))])
        before = await all_contents(target)
        with pytest.raises(TargetInUse, match="1 of deployment that the source does not have"):
            await copy(source, target)
        assert await all_contents(target) == before


async def _changed(store: OpenStore) -> None:
    found = await store.deployment("dep_0060")
    assert found is not None
    await store.commit([Update(replace(found, revision=found.revision + 1))])


async def _woken(store: OpenStore) -> None:
    await store.wake(["dep_0014"], after(1))


async def _lost(store: OpenStore) -> None:
    assert await store.forget_jobs(after(10**6), 9) == 1


class _Interrupted:
    """A source in the middle of whose last collection something happens to the target."""

    def __init__(self, archive: Archive, happens: Callable[[], Awaitable[None]]) -> None:
        self._archive = archive
        self._happens: Callable[[], Awaitable[None]] | None = happens

    async def stored(self, collection: Collection, after: str | None, limit: int) -> Sequence[Stored]:
        if collection == "event" and after is not None and self._happens is not None:
            happens, self._happens = self._happens, None
            await happens()
        return await self._archive.stored(collection, after, limit)

    async def restore(self, collection: Collection, rows: Sequence[Stored]) -> None:
        raise AssertionError("nothing is written to a source")


@pytest.mark.parametrize(
    ("change", "word"), [(_changed, "deployment"), (_woken, "deployment"), (_lost, "job")]
)
async def test_a_service_that_still_runs_on_the_target_is_found(
    source_url: str,
    new_sqlite: Callable[[str], str],
    change: Callable[[OpenStore], Awaitable[None]],
    word: str,
) -> None:
    async with opened(source_url) as source, opened(new_sqlite("target")) as target:
        with pytest.raises(NotEqual, match="does not equal its source") as found:
            await copy(_Interrupted(source, partial(change, target)), target)
    assert found.value.found[0].collection == word


async def test_ctrl_c_leaves_what_the_next_copy_completes(
    source_url: str, new_sqlite: Callable[[str], str]
) -> None:
    """It is interrupted while it waits for a lock on the target."""
    for number in range(5):
        target_url = new_sqlite(f"target-{number}")
        code, told = await _interrupted(source_url, target_url)
        assert "Traceback" not in told
        if code != 0:  # it was not done already when the lock was taken
            break
    assert code == 130, told
    assert "The same command goes on where it was" in told
    async with opened(source_url) as source, opened(target_url) as target:
        assert await all_contents(source) != await all_contents(target)
        await copy(source, target)
        assert await all_contents(source) == await all_contents(target)


async def _interrupted(source_url: str, target_url: str) -> tuple[int | None, str]:
    """Exit code and standard error."""
    process = await asyncio.create_subprocess_exec(
        *CLI, source_url, target_url, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environ()
    )
    assert process.stderr is not None
    while not (line := await process.stderr.readline()).startswith(b"copying"):
        assert line, "it ended before"
    with closing(sqlite3.connect(target_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.2)
        other.execute("ROLLBACK")
    _, rest = await process.communicate()
    return process.returncode, rest.decode()
