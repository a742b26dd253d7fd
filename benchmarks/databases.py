"""An empty store of each kind, whenever a measurement wants one; their servers live as long as the run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STORES = ("sqlite", "postgresql", "firestore")


class Missing(Exception):
    """A store's server is not to be had on this machine; says what is not installed."""


@contextmanager
def databases(kind: str, folder: Path) -> Iterator[Callable[[], str]]:
    """Each call of what it gives makes an empty store of that kind, and returns its URL. Raises Missing."""
    numbers = itertools.count(1)
    match kind:
        case "sqlite":
            yield lambda: f"sqlite:///{folder / f'{next(numbers)}.db'}"
        case "postgresql":
            from moorage.testing.postgres import PostgresMissing, PostgresServer

            try:
                server = PostgresServer(folder, durable=True)
            except PostgresMissing as error:
                raise Missing(str(error)) from error
            with server:
                yield server.new_database
        case "firestore":
            from moorage.testing.firestore import MISSING, FirestoreEmulator, available

            if not available():
                raise Missing(MISSING)
            with FirestoreEmulator() as emulator:
                yield emulator.new_database
        case _:
            raise ValueError(f"no store is named {kind!r}; there are {', '.join(STORES)}")
