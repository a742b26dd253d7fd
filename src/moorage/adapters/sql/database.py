"""How functions on a connection are run: the one difference between the databases that we speak SQL with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection

from moorage.adapters.sql.rows import Unit

T = TypeVar("T")
Work: TypeAlias = Callable[[Connection], T]


class Database(Protocol):
    async def read(self, work: Work[T]) -> T:
        """Runs `work`, which must not write."""

    async def write(self, work: Work[T], *, quiet: bool | Callable[[T], bool] = False) -> T:
        """Runs `work` in a transaction, committed and durable when this returns. `work` may run more than
        once, only the last run counts. With `quiet`, or where that says so of the
        result, other processes need not hear of it."""

    async def commit(self, unit: Unit) -> None:
        """Writes a unit of work. Raises AlreadyExists or StaleWrite."""

    def changes(self) -> AsyncIterator[None]:
        """As `Store.changes`."""

    async def aclose(self) -> None: ...
