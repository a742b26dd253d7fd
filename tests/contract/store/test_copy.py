"""Copying from archive to archive: whole, resumed, refused and verified. In memory, where everything can be
made to happen between any two operations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.adapters.row_codec import Codec
from moorage.copying import BATCH_BYTES, COLLECTIONS, NotEqual, TargetInUse, canonical, contents, copy
from moorage.domain.deployment import Deployment
from moorage.errors import StoreUnavailable
from moorage.ports.store import Collection, Stored
from moorage.testing.archive import MemoryArchive
from moorage.testing.archive_rows import everything, renamed_away, stored
from moorage.testing.store_rows import deployment, event, job_input


@pytest.fixture
def source() -> MemoryArchive:
    """Several pages of what there is most of, and a little of everything else."""
    archive = MemoryArchive()
    for collection, rows in everything().items():
        archive.rows[collection] = {row.key: row for row in rows}
    for number in range(100, 1200):
        fact = Stored(event(number, f"dep_{number % 40:04d}"))
        archive.rows["event"][fact.key] = fact
    for number in range(100, 700):
        row = stored(replace(deployment(number), version=1))
        archive.rows["deployment"][row.key] = row
    return archive


async def test_everything_is_copied_and_told(source: MemoryArchive) -> None:
    target, told = MemoryArchive(), []
    copied = await copy(source, target, lambda *progress: told.append(progress))
    assert target.rows == source.rows
    assert [each.collection for each in copied] == list(COLLECTIONS)
    for each in copied:
        assert each.contents.rows == each.written == len(source.rows[each.collection])
        assert each.contents == await contents(target, each.collection)
    assert [progress for progress in told if progress[:2] == ("copying", "deployment")] == [
        ("copying", "deployment", 500),
        ("copying", "deployment", 607),
    ]
    assert ("verifying", "event", len(source.rows["event"])) in told


async def test_what_is_large_is_written_in_small_batches(source: MemoryArchive) -> None:
    quarter, twice = "x" * (BATCH_BYTES // 4), "x" * (2 * BATCH_BYTES)
    texts = [quarter] * 8 + [twice, "x", quarter]
    rows = [stored(replace(job_input(number), text=text, version=1)) for number, text in enumerate(texts)]
    source.rows["job_payload"] = {row.key: row for row in rows}
    target = MemoryArchive()
    await copy(source, target)
    batches = [rows for collection, rows in target.restored if collection == "job_payload"]
    assert batches == [3, 3, 2, 1, 2], "the key and the quotes count too; pages have 8"
    assert target.rows == source.rows


async def test_a_second_copy_writes_nothing(source: MemoryArchive) -> None:
    target = MemoryArchive()
    first = await copy(source, target)
    target.restored.clear()
    second = await copy(source, target)
    assert target.restored == []
    assert [each.written for each in second] == [0] * len(COLLECTIONS)
    assert [each.contents for each in second] == [each.contents for each in first]


class _Interrupted(Exception):
    pass


class _Dying(MemoryArchive):
    """Ends after so many operations, the last of which may have been done or not."""

    def __init__(self, operations: int, *, done: bool) -> None:
        super().__init__()
        self._left = operations
        self._done = done

    async def stored(self, collection: Collection, after: str | None, limit: int) -> Sequence[Stored]:
        self._left -= 1
        if self._left < 0:
            raise _Interrupted
        return await super().stored(collection, after, limit)

    async def restore(self, collection: Collection, rows: Sequence[Stored]) -> None:
        self._left -= 1
        if self._left < 0 and self._done:
            await super().restore(collection, rows)
        if self._left < 0:
            raise _Interrupted
        await super().restore(collection, rows)


@pytest.mark.parametrize("done", [False, True])
async def test_a_copy_that_was_killed_anywhere_goes_on_where_it_was(
    source: MemoryArchive, done: bool
) -> None:
    target = MemoryArchive()
    total = sum(len(rows) for rows in source.rows.values())
    written = deaths = 0
    for operations in range(16, 100, 5):
        dying = _Dying(operations, done=done)
        dying.rows = target.rows
        try:
            copied = await copy(source, dying)
        except _Interrupted:
            deaths += 1
        else:
            assert sum(each.written for each in copied) < total / 2, "most of it was there already"
            break
        finally:
            written += sum(rows for _, rows in dying.restored)
    assert deaths > 2
    assert written == total, "no row was written twice"
    assert target.rows == source.rows


async def test_a_copy_that_was_cancelled_goes_on(source: MemoryArchive) -> None:
    target = MemoryArchive()
    reached = asyncio.Event()

    def progress(stage: str, collection: str, rows: int) -> None:
        if (stage, collection, rows) == ("copying", "event", 500):
            reached.set()

    copying = asyncio.ensure_future(copy(source, target, progress))
    await reached.wait()
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert 500 <= len(target.rows["event"]) < len(source.rows["event"])
    (events,) = [each for each in await copy(source, target) if each.collection == "event"]
    assert 0 < events.written <= len(source.rows["event"]) - 500


async def test_what_changed_in_the_source_since_is_copied_again(source: MemoryArchive) -> None:
    target = MemoryArchive()
    await copy(source, target)
    woken = replace(_deployment(source, "dep_0100"), due_at=None)  # versions stay
    changed = replace(_deployment(source, "dep_0101"), version=2, revision=2)
    source.rows["deployment"] |= {row.id: stored(row) for row in (woken, changed)}
    freed = Stored(source.rows["deployment"]["dep_0102"].row, holds_name=False)
    source.rows["deployment"]["dep_0102"] = freed
    copied = await copy(source, target)
    assert {each.collection: each.written for each in copied if each.written} == {"deployment": 3}
    assert target.rows == source.rows


def _deployment(archive: MemoryArchive, id_: str) -> Deployment:
    row = archive.rows["deployment"][id_].row
    assert isinstance(row, Deployment)
    return row


async def test_a_target_with_rows_of_its_own_is_refused_and_untouched(source: MemoryArchive) -> None:
    target = MemoryArchive()
    await target.restore("deployment", [Stored(deployment(5000)), Stored(deployment(0))])
    await target.restore("event", [Stored(event(5000))])
    before = {collection: dict(rows) for collection, rows in target.rows.items()}
    with pytest.raises(TargetInUse) as refused:
        await copy(source, target)
    assert {collection: dict(rows) for collection, rows in target.rows.items() if rows} == before
    assert [(each.collection, each.foreign) for each in refused.value.found] == [
        ("deployment", 2),
        ("event", 1),
    ]
    assert "2 of deployment that the source does not have, 1 of event" in str(refused.value)


async def test_a_target_that_went_on_after_a_copy_is_refused(source: MemoryArchive) -> None:
    """An old copy of the source would undo what was done since."""
    target = MemoryArchive()
    await copy(source, target)
    newer = replace(_deployment(source, "dep_0100"), version=2)
    told_otherwise = replace(event(100, "dep_0020"), message="another")
    target.rows["deployment"]["dep_0100"] = stored(newer)
    target.rows["event"][Stored(told_otherwise).key] = Stored(told_otherwise)
    target.restored.clear()
    with pytest.raises(TargetInUse, match="1 of deployment newer than the source's, 1 of event newer"):
        await copy(source, target)
    assert target.restored == []


async def test_an_empty_source_is_copied_but_not_over_a_full_target(source: MemoryArchive) -> None:
    assert {each.contents.rows for each in await copy(MemoryArchive(), MemoryArchive())} == {0}
    with pytest.raises(TargetInUse):
        await copy(MemoryArchive(), source)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda rows: rows.pop("dep_0100"), "607 rows in the source, 606 in the target"),
        (lambda rows: rows.update(dep_0100=stored(deployment(100))), "607 rows on both sides"),
        (
            lambda rows: rows.update({"dep_9": stored(deployment(9))}),
            "608 in the target",
        ),
        (lambda rows: rows.update(dep_0012=stored(renamed_away())), "607 rows on both sides"),
    ],
)
@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_change_while_copying_is_found(
    source: MemoryArchive, change: object, word: str, side: str
) -> None:
    """Of a row that was copied already. Only the name that is held differs in the last."""
    target = MemoryArchive()
    changed = source if side == "source" else target

    def progress(stage: str, collection: str, rows: int) -> None:
        if (stage, collection, rows) == ("copying", "event", 500):
            assert callable(change)
            change(changed.rows["deployment"])

    with pytest.raises(NotEqual, match="deployment") as found:
        await copy(source, target, progress)
    assert [each.collection for each in found.value.found] == ["deployment"]
    if side == "target":
        assert word in str(found.value)


class _Slow(MemoryArchive):
    """Can do so many rows in the time it has; what it could not do may have been done."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self.asked = 0

    async def stored(self, collection: Collection, after: str | None, limit: int) -> Sequence[Stored]:
        self.asked += 1
        page = await super().stored(collection, after, limit)
        if len(page) > self._most:
            raise StoreUnavailable("it took too long")
        return page

    async def restore(self, collection: Collection, rows: Sequence[Stored]) -> None:
        self.asked += 1
        await super().restore(collection, rows)
        if len(rows) > self._most:
            raise StoreUnavailable("it took too long")


@pytest.mark.parametrize("most", [499, 130, 40])
async def test_a_slow_store_is_asked_for_less(source: MemoryArchive, most: int) -> None:
    target = _Slow(most)
    copied = await copy(source, target)
    assert target.rows == source.rows
    assert sum(each.written for each in copied) == sum(len(rows) for rows in source.rows.values())
    back = MemoryArchive()
    await copy(target, back)
    assert back.rows == source.rows


async def test_a_store_that_is_away_is_not_asked_for_ever(source: MemoryArchive) -> None:
    away = _Slow(0)
    with pytest.raises(StoreUnavailable):
        await copy(source, away)
    assert away.asked < 30
    nothing = _Slow(-1)
    with pytest.raises(StoreUnavailable):
        await copy(nothing, away)
    assert nothing.asked + away.asked < 40


@settings(max_examples=30, deadline=None)
@given(data=st.data())
async def test_any_part_of_a_copy_is_completed(data: st.DataObject) -> None:
    source, target = MemoryArchive(), MemoryArchive()
    for collection, rows in everything().items():
        chosen = data.draw(st.lists(st.sampled_from(rows), unique_by=lambda row: row.key))
        source.rows[collection] = {row.key: row for row in chosen}
        part = data.draw(st.lists(st.sampled_from(chosen), unique_by=lambda row: row.key)) if chosen else []
        target.rows[collection] = {row.key: row for row in part}
    copied = await copy(source, target)
    assert {c: r for c, r in target.rows.items() if r} == {c: r for c, r in source.rows.items() if r}
    assert sum(each.written for each in copied) == sum(rows for _, rows in target.restored)


def test_equal_rows_have_one_canonical_form() -> None:
    ref = Codec(Deployment)
    for row in everything()["deployment"]:
        assert isinstance(row.row, Deployment)
        back = Stored(ref.load(ref.dump(row.row)), row.holds_name)
        turned = json.dumps(dict(reversed(json.loads(ref.dump(row.row)).items())))
        assert canonical(back) == canonical(Stored(ref.load(turned), row.holds_name)) == canonical(row)
        assert canonical(Stored(row.row, not row.holds_name)) != canonical(row)
    lines = [canonical(row) for rows in everything().values() for row in rows]
    assert len(set(lines)) == len(lines)
    assert all(line.count(b"\n") == 1 for line in lines)
