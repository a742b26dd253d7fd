"""Clusters, node groups and model versions of the store in memory: a part of it, apart for its length."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.model_version import ModelVersion
from moorage.ports.store import Page
from moorage.testing.store_pages import page

if TYPE_CHECKING:
    from moorage.testing.store import Memory

B = TypeVar("B", Cluster, NodeGroup, ModelVersion)


class Brought:
    """What `MemoryStore` does for what organizations bring along."""

    _memory: Memory

    async def cluster(self, cluster_id: str, organization_id: str) -> Cluster | None:
        await asyncio.sleep(0)
        return next((row for row in self._of(Cluster, organization_id) if row.id == cluster_id), None)

    async def clusters(self, organization_id: str) -> Sequence[Cluster]:
        await asyncio.sleep(0)
        there = [row for row in self._of(Cluster, organization_id) if row.removed_at is None]
        return sorted(there, key=lambda row: (row.created_at, row.id))

    async def node_groups(self, organization_id: str, cluster_id: str | None = None) -> Sequence[NodeGroup]:
        await asyncio.sleep(0)
        there = [
            row
            for row in self._of(NodeGroup, organization_id)
            if row.removed_at is None and cluster_id in (None, row.cluster_id)
        ]
        return sorted(there, key=lambda row: (row.created_at, row.id))

    async def node_group(self, group_id: str, organization_id: str) -> NodeGroup | None:
        await asyncio.sleep(0)
        return next((row for row in self._of(NodeGroup, organization_id) if row.id == group_id), None)

    async def model_version(self, model_id: str, organization_id: str) -> ModelVersion | None:
        await asyncio.sleep(0)
        return next((row for row in self._of(ModelVersion, organization_id) if row.id == model_id), None)

    async def model_versions(
        self, organization_id: str, cursor: str | None, limit: int
    ) -> Page[ModelVersion]:
        await asyncio.sleep(0)
        there = [row for row in self._of(ModelVersion, organization_id) if row.removed_at is None]
        return page(there, cursor, limit)

    def _of(self, type_: type[B], organization_id: str) -> list[B]:
        rows = [cell.row for cell in self._memory.cells.values()]
        return [row for row in rows if isinstance(row, type_) and row.organization_id == organization_id]
