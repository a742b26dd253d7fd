"""What is particular to SQLite: the file, the locks of other programs, closing, cancelling."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from moorage.adapters.sql import sqlite, sqlite_writer
from moorage.adapters.sql.store import SqlStore
from moorage.errors import StoreError, StoreUnavailable, StoreUnusable
from moorage.ports.store import Insert
from moorage.testing.store_rows import deployment


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "moorage.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    store = await SqlStore.open(f"sqlite:///{path}")
    yield store
    await store.aclose()


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("sqlite://", "file"),
        ("sqlite:///:memory:", "file"),
        ("sqlite:///x.db?mode=ro", "options"),
        ("mysql://localhost/x", "mysql"),
        ("moorage.db", "URL"),
    ],
)
async def test_a_url_that_cannot_be_says_why(url: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        await SqlStore.open(url)


@pytest.mark.parametrize("inside", ["a-file/moorage.db", "a-folder", "a-file"])
async def test_a_file_that_cannot_be_used_says_so(tmp_path: Path, inside: str) -> None:
    (tmp_path / "a-file").write_text("none of ours, and longer than a header: " + "." * 200)
    (tmp_path / "a-folder").mkdir()
    with pytest.raises(StoreError, match=f"{tmp_path / inside} cannot be used") as caught:
        await SqlStore.open(f"sqlite:///{tmp_path / inside}")
    assert isinstance(caught.value, StoreUnavailable | StoreUnusable)


async def test_tables_of_a_newer_release_are_left_alone(path: Path) -> None:
    await (await SqlStore.open(f"sqlite:///{path}")).aclose()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(
        StoreUnusable, match=r"revision 9999 .* up to 0.* upgrade Moorage or restore a backup"
    ):
        await SqlStore.open(f"sqlite:///{path}")


async def test_the_file_is_its_owners_alone(store: SqlStore, path: Path) -> None:
    await store.commit([Insert(deployment())])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["moorage.db", "moorage.db-shm", "moorage.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_commits_are_synced(path: Path) -> None:
    sqlite.prepare_file(path)
    with sqlite.make_engine(path, writes=True).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


async def test_reads_go_on_and_a_commit_waits_while_another_program_writes(
    store: SqlStore, path: Path
) -> None:
    await store.commit([Insert(deployment(1))])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        commit = asyncio.ensure_future(store.commit([Insert(deployment(2))]))
        assert await store.deployment("dep_0001") is not None
        await asyncio.sleep(0.2)
        assert not commit.done()
        other.execute("ROLLBACK")
        await asyncio.wait_for(commit, 5)
    assert await store.deployment("dep_0002") is not None


async def test_a_lock_longer_than_the_timeout_is_waited_for_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.1)
    store = await SqlStore.open(f"sqlite:///{path}")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        commit = asyncio.ensure_future(store.commit([Insert(deployment(1))]))
        await asyncio.sleep(0.25)
        other.execute("ROLLBACK")
        await asyncio.wait_for(commit, 5)
        # One that does not end is told, and nothing is lost in silence.
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await asyncio.wait_for(store.commit([Insert(deployment(2))]), 10)
        other.execute("ROLLBACK")
    assert await store.deployment("dep_0002") is None
    await store.commit([Insert(deployment(2))])
    await store.aclose()


async def test_what_waits_when_the_store_closes_is_written(path: Path) -> None:
    store = await SqlStore.open(f"sqlite:///{path}")
    commits = [asyncio.ensure_future(store.commit([Insert(deployment(n))])) for n in range(20)]
    await asyncio.sleep(0)
    await store.aclose()
    await asyncio.gather(*commits)
    with pytest.raises(StoreError, match="closed"):
        await store.commit([Insert(deployment(99))])
    with pytest.raises(StoreError, match="closed"):
        await store.deployment("dep_0001")
    again = await SqlStore.open(f"sqlite:///{path}")
    assert await again.deployment("dep_0019") is not None
    await again.aclose()


async def test_a_cancelled_caller_harms_nobody(store: SqlStore) -> None:
    commits = [asyncio.ensure_future(store.commit([Insert(deployment(n))])) for n in range(10)]
    await asyncio.sleep(0)
    commits[3].cancel()
    results = await asyncio.gather(*commits, return_exceptions=True)
    assert [result for n, result in enumerate(results) if n != 3] == [None] * 9
    assert isinstance(results[3], asyncio.CancelledError)


async def test_news_end_when_the_store_closes(path: Path) -> None:
    store = await SqlStore.open(f"sqlite:///{path}")

    async def listen() -> list[None]:
        return [news async for news in store.changes()]

    listening = asyncio.ensure_future(listen())
    await asyncio.sleep(0.01)
    await store.aclose()
    assert await asyncio.wait_for(listening, 5) == []


@pytest.mark.parametrize("failing", [range(3), range(2, 5)])
async def test_a_passing_error_of_a_look_for_news_ends_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: range
) -> None:
    looks, look = itertools.count(), sqlite_writer._data_version
    passed = threading.Event()

    def sometimes(connection: Connection) -> int:
        number = next(looks)
        if number in failing:
            raise sqlite3.OperationalError("disk I/O error")
        if number > failing.stop:
            passed.set()
        return look(connection)

    monkeypatch.setattr(sqlite_writer, "_data_version", sometimes)
    monkeypatch.setattr(sqlite_writer, "WATCH_PERIOD", 0.01)
    store = await SqlStore.open(f"sqlite:///{path}")
    async with aclosing(store.changes()) as changes:  # type: ignore[type-var]  # a generator, as all are
        news = asyncio.ensure_future(anext(changes))
        await asyncio.to_thread(passed.wait, 5)
        await store.commit([Insert(deployment())])
        second = await SqlStore.open(f"sqlite:///{path}")
        await second.commit([Insert(deployment(2))])
        await asyncio.wait_for(news, 5)
        await second.aclose()
    await store.aclose()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # as it should be
async def test_a_dead_thread_leaves_nobody_waiting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder in the file's place: no connection can be opened.
    monkeypatch.setattr(sqlite, "prepare_file", lambda path: path.mkdir(parents=True))
    store = await SqlStore.open(f"sqlite:///{path}")
    results = await asyncio.wait_for(
        asyncio.gather(
            store.commit([Insert(deployment())]), store.deployment("dep_0001"), return_exceptions=True
        ),
        5,
    )
    assert [type(result) for result in results] == [StoreError, StoreError]
    await store.aclose()


async def test_an_error_holds_no_values(store: SqlStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE deployments")
    with pytest.raises(StoreError) as caught:
        await store.commit([Insert(deployment())])
    told = f"{caught.value} {caught.value.__cause__}"
    assert "no such table" in told
    assert "name-1" not in told
