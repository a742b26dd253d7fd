"""What fails beside others is told in the port's words: callers catch StoreError, and no group of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from moorage.adapters.firestore import changing
from moorage.adapters.firestore.bodies import Bodies
from moorage.adapters.firestore.database import Database, Tries
from moorage.adapters.firestore.documents import Change, Found, Place
from moorage.adapters.firestore.failures import Conflict
from moorage.adapters.firestore.plan import prepare
from moorage.adapters.firestore.side_by_side import side_by_side
from moorage.errors import StoreError, StoreUnavailable
from moorage.ports.store import Insert
from moorage.testing.store_rows import NOW, job_input


class Away(Database):
    """Meets somebody in a batch of several, and does not answer for one alone."""

    def __init__(self) -> None:
        pass

    async def get(self, places: Collection[Place], fields: Sequence[str] | None = None) -> dict[Place, Found]:
        return {place: found(place) for place in places}

    async def write(self, changes: Sequence[Change]) -> None:
        if len(changes) == 2:
            raise Conflict
        raise StoreUnavailable("away")

    def tries(self) -> Tries:
        return Tries("away")


def found(place: Place) -> Found:
    return Found(place, {}, NOW + timedelta(seconds=1))


def changed(_: Mapping[str, Any]) -> dict[str, int]:  # Any: as of `Found`
    return {"due_at": 1}


async def test_documents_that_are_changed_alone() -> None:
    rows = [found(Place("deployments", key)) for key in "ab"]
    with pytest.raises(StoreUnavailable, match="away"):
        await changing.change_each(Away(), rows, ("due_at",), changed)


async def test_parts_of_a_body() -> None:
    big = prepare(Insert(replace(job_input(), text="x" * 8_000_000)))
    with pytest.raises(StoreUnavailable, match="away"):
        await Bodies(Away(), NOW.timestamp).stage([big])


async def test_the_others_are_given_up_and_the_error_keeps_its_cause() -> None:
    begun, cause = [], ValueError("the cause")

    async def fail() -> None:
        raise StoreError("first") from cause

    async def wait() -> None:
        begun.append(1)
        await asyncio.Event().wait()

    with pytest.raises(StoreError, match="first") as caught:
        await side_by_side([wait, fail, wait, wait], at_once=2)
    assert caught.value.__cause__ is cause
    assert len(begun) <= 2
