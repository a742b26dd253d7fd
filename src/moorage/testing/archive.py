"""An archive in memory, for tests of what moves stores: filled with anything, and broken at will."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from moorage.domain.cluster import Cluster
from moorage.domain.deployment import Deployment
from moorage.domain.identity import ApiKey, User
from moorage.domain.model_version import ModelVersion
from moorage.errors import AlreadyExists
from moorage.ports.store import Collection, Stored

LIMIT = 500


class MemoryArchive:
    """A `moorage.ports.store.Archive`. `restored` counts what was written, batch by batch."""

    def __init__(self) -> None:
        self.rows: dict[Collection, dict[str, Stored]] = defaultdict(dict)
        self.restored: list[tuple[Collection, int]] = []

    async def stored(self, collection: Collection, after: str | None, limit: int) -> Sequence[Stored]:
        await asyncio.sleep(0)
        rows = self.rows[collection]
        keys = sorted(key for key in rows if after is None or key > after)
        return [rows[key] for key in keys[:limit]]

    async def restore(self, collection: Collection, rows: Sequence[Stored]) -> None:
        await asyncio.sleep(0)
        if len(rows) > LIMIT:
            raise ValueError(f"at most {LIMIT} rows can be restored at once")
        merged = self.rows[collection] | {row.key: row for row in rows}
        _refuse_doubles(collection, merged)
        self.rows[collection] = merged
        self.restored.append((collection, len(rows)))


def _refuse_doubles(collection: Collection, rows: dict[str, Stored]) -> None:
    holders: dict[tuple[str, ...], str] = {}
    for key, stored in rows.items():
        unique = _unique(stored)
        if unique is not None and holders.setdefault(unique, key) != key:
            raise AlreadyExists(collection, key)


def _unique(stored: Stored) -> tuple[str, ...] | None:
    """What no two rows of a collection may have in common besides the key."""
    match stored.row:
        case User() as user:
            return (user.username,)
        case ApiKey() as key:
            return (key.hash,)
        case Deployment() as deployment if stored.holds_name:
            return (deployment.organization_id, deployment.name)
        case Cluster(removed_at=None) as cluster:
            return (cluster.organization_id, cluster.name)
        case ModelVersion(removed_at=None) as model:
            return (model.organization_id, model.name, model.model_version)
    return None
