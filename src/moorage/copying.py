"""Everything that one store holds, moved into another, while no service runs on either.

A copy needs no memory of its own. It looks at what the target already has and writes what differs, so a run
that was killed is simply run again. What it must never do is spoil a store that is in use: whatever the
target holds beyond the source, or newer, refuses the copy before anything is written. In the end both sides
are read once more and have to agree by count and by hash; a service that went on writing shows there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

from moorage.adapters.row_codec import Codec
from moorage.domain.event import Event
from moorage.errors import MoorageError, StoreUnavailable
from moorage.ports.store import Archive, Collection, Stored

COLLECTIONS: tuple[Collection, ...] = get_args(Collection)
PAGE = 500  # rows read or written at once
LESS = 4  # a store that did not answer in time is asked for so many times less at once
LEAST = 25  # rows; who cannot do that is away
PAYLOADS = 8  # of these, which may have 20 MB each
BATCH_BYTES = 4 << 20  # that one write has at most, unless a single row is larger

Stage = Literal["comparing", "copying", "verifying"]
_CODECS: dict[type, Codec[Any]] = {}  # Any: one for each type of row

# Told after every page: how many rows of the collection have been gone through.
Progress: TypeAlias = Callable[[Stage, Collection, int], None]


@dataclass(frozen=True, slots=True)
class Contents:
    """Of one collection: how many rows, and a digest of them all in the order of their keys."""

    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Copied:
    """`written` counts the rows that the target did not have, or had otherwise."""

    collection: Collection
    contents: Contents
    written: int


@dataclass(frozen=True, slots=True)
class Beyond:
    """What the target has of a collection and a copy would lose: rows that the source does not have, and
    rows that were changed since they were copied."""

    collection: Collection
    foreign: int = 0
    newer: int = 0

    def __str__(self) -> str:
        parts = ((self.foreign, "that the source does not have"), (self.newer, "newer than the source's"))
        return " and ".join(f"{count} of {self.collection} {what}" for count, what in parts if count)


class TargetInUse(MoorageError):
    """Nothing was written."""

    def __init__(self, found: Sequence[Beyond]) -> None:
        super().__init__(f"The target holds {', '.join(str(beyond) for beyond in found)}.")
        self.found = tuple(found)


@dataclass(frozen=True, slots=True)
class Difference:
    collection: Collection
    source: Contents
    target: Contents

    def __str__(self) -> str:
        if self.source.rows == self.target.rows:
            return f"{self.collection}: {self.source.rows} rows on both sides, but not the same"
        return f"{self.collection}: {self.source.rows} rows in the source, {self.target.rows} in the target"


class NotEqual(MoorageError):
    """The copy ended, and the two stores hold different things."""

    def __init__(self, found: Sequence[Difference]) -> None:
        super().__init__(f"The copy does not equal its source. {'; '.join(str(each) for each in found)}.")
        self.found = tuple(found)


def _untold(stage: Stage, collection: Collection, rows: int) -> None:
    pass


async def copy(source: Archive, target: Archive, progress: Progress = _untold) -> tuple[Copied, ...]:
    """Makes the target hold what the source holds. Raises TargetInUse before anything is written, NotEqual
    when a look at both sides afterwards finds a difference, and StoreError as the stores do."""
    source, target = _Patient(source), _Patient(target)
    beyond = [await _beyond(source, target, collection, progress) for collection in COLLECTIONS]
    if any(each.foreign or each.newer for each in beyond):
        raise TargetInUse([each for each in beyond if each.foreign or each.newer])
    written = {
        collection: await _write_missing(source, target, collection, progress) for collection in COLLECTIONS
    }
    contents = await _verified(source, target, progress)
    return tuple(Copied(collection, contents[collection], written[collection]) for collection in COLLECTIONS)


async def contents(
    archive: Archive, collection: Collection, progress: Callable[[int], None] = lambda rows: None
) -> Contents:
    """`progress` is told after every page how many rows there were. Raises StoreError as the store does."""
    return await _digest(_Patient(archive), collection, progress)


async def _digest(archive: Archive, collection: Collection, progress: Callable[[int], None]) -> Contents:
    rows, digest = 0, hashlib.sha256()
    async for page in _pages(archive, collection):
        for stored in page:
            digest.update(canonical(stored))
        rows += len(page)
        progress(rows)
    return Contents(rows, digest.hexdigest())


def canonical(stored: Stored) -> bytes:
    """One line for a row: its key, whether it holds its name, and its JSON with the version, written in the
    one way in which equal rows give equal bytes."""
    codec = _CODECS.setdefault(type(stored.row), Codec(type(stored.row)))
    value = [stored.key, stored.holds_name, json.loads(codec.dump(stored.row))]
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


async def _beyond(source: Archive, target: Archive, collection: Collection, progress: Progress) -> Beyond:
    """Both sides in step. It reads no more of the source than the target has: of an empty one, nothing."""
    mine: Stored | None = None
    foreign = newer = rows = 0
    async with aclosing(_rows(source, collection)) as ours:
        async for page in _pages(target, collection):
            for theirs in page:
                while mine is None or mine.key < theirs.key:
                    mine = await anext(ours, None)
                    if mine is None:
                        break
                if mine is None or mine.key != theirs.key:
                    foreign += 1
                elif _is_newer(theirs, mine):
                    newer += 1
            rows += len(page)
            progress("comparing", collection, rows)
    return Beyond(collection, foreign, newer)


def _is_newer(theirs: Stored, ours: Stored) -> bool:
    """An event is written once: another one under its key was not copied."""
    if isinstance(theirs.row, Event) or isinstance(ours.row, Event):
        return theirs.row != ours.row
    return theirs.row.version > ours.row.version


async def _write_missing(source: Archive, target: Archive, collection: Collection, progress: Progress) -> int:
    """As all keys of the target are the source's too, so many rows of it after the same key hold all that
    belong to a page of the source."""
    written = rows = 0
    after: str | None = None
    async for page in _pages(source, collection):
        there = {row.key: canonical(row) for row in await target.stored(collection, after, len(page))}
        for batch in _batches(page, there):
            await target.restore(collection, batch)
            written += len(batch)
        after = page[-1].key
        rows += len(page)
        progress("copying", collection, rows)
    return written


def _batches(page: Sequence[Stored], there: dict[str, bytes]) -> Iterator[list[Stored]]:
    batch: list[Stored] = []
    size = 0
    for stored in page:
        line = canonical(stored)
        if there.get(stored.key) == line:
            continue
        if batch and size + len(line) > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(stored)
        size += len(line)
    if batch:
        yield batch


async def _verified(source: Archive, target: Archive, progress: Progress) -> dict[Collection, Contents]:
    found: dict[Collection, Contents] = {}
    differences = []
    for collection in COLLECTIONS:
        ours, theirs = await asyncio.gather(
            _digest(source, collection, lambda rows: None),
            _digest(target, collection, partial(progress, "verifying", collection)),
        )
        found[collection] = ours
        if ours != theirs:
            differences.append(Difference(collection, ours, theirs))
    if differences:
        raise NotEqual(differences)
    return found


async def _pages(archive: Archive, collection: Collection) -> AsyncIterator[Sequence[Stored]]:
    """None of them empty."""
    limit = PAYLOADS if collection == "job_payload" else PAGE
    after: str | None = None
    while page := await archive.stored(collection, after, limit):
        yield page
        if len(page) < limit:
            return
        after = page[-1].key


async def _rows(archive: Archive, collection: Collection) -> AsyncGenerator[Stored, None]:
    async for page in _pages(archive, collection):
        for stored in page:
            yield stored


class _Patient:
    """A store has seconds for what it is asked, which is right for requests and may be too short for five
    hundred rows at once. What it could not do in time is asked of it in smaller parts, from then on. That is
    safe, as reading and restoring may both be done twice; and so a short outage is outlived too.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._most = PAGE

    async def stored(self, collection: Collection, after: str | None, limit: int) -> Sequence[Stored]:
        found: list[Stored] = []
        while len(found) < limit:
            size = min(limit - len(found), self._most)
            try:
                page = await self._archive.stored(collection, found[-1].key if found else after, size)
            except StoreUnavailable as error:
                self._ask_less(error)
                continue
            found += page
            if len(page) < size:
                break
        return found

    async def restore(self, collection: Collection, rows: Sequence[Stored]) -> None:
        done = 0
        while done < len(rows):
            part = rows[done : done + self._most]
            try:
                await self._archive.restore(collection, part)
            except StoreUnavailable as error:
                self._ask_less(error)
                continue
            done += len(part)

    def _ask_less(self, error: StoreUnavailable) -> None:
        if self._most // LESS < LEAST:
            raise error
        self._most //= LESS
