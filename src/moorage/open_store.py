"""Which store a URL means: the one place, for the service and for the tools that move or check a store."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import urlsplit

from moorage.adapters.sql.store import SqlStore
from moorage.ports.store import Archive, Store

SCHEMES = ("sqlite", "postgresql", "firestore")


class OpenStore(Store, Archive, Protocol):
    """What every adapter is: a store that can also be moved."""


async def open_store(url: str, *, pool: int = 10) -> OpenStore:
    """`sqlite:////absolute/path.db`, `postgresql://user:password@host:port/database` or
    `firestore://project/database`; tables are made and brought up to date. `pool` is the number of
    connections that PostgreSQL is asked for at most.

    Raises ValueError for a URL that cannot be one, StoreUnusable where it can never work, and
    StoreUnavailable where nothing answers now. No message has a password in it.
    """
    match urlsplit(url).scheme:
        case "sqlite" | "postgresql":
            return await SqlStore.open(url, pool=pool)
        case "firestore":
            from moorage.adapters.firestore.store import FirestoreStore  # an extra that not all install

            return await FirestoreStore.open(url)
        case other:
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise ValueError(f"A database URL begins with one of {known}, and this one with {other!r}")
