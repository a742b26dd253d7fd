"""What every store must do with clusters, node groups and model versions: a part of `StoreContract`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from moorage.domain.cluster import (
    ClusterReport,
    FoundGroup,
    GpuNode,
    Grant,
    NodeShape,
    StorageClass,
    Tool,
)
from moorage.domain.workload import AccessMode
from moorage.errors import AlreadyExists, StaleWrite
from moorage.ports.store import Insert, Store, Update
from moorage.testing.store_rows import NOW, after, cluster, model_version, node_group

_REPORT = ClusterReport(
    NOW,
    version="v1.33.1",
    grants=(Grant("create", "deployments.apps", True, "running anything"),),
    storage_classes=(StorageClass("fast", "ebs.csi.aws.com", True, (AccessMode.READ_WRITE_ONCE,)),),
    tools=(Tool("prometheus", True, "v3", "http://prometheus.monitoring:9090"),),
    gateway_classes=("eg",),
    gpu_nodes=(GpuNode("node-1", "NVIDIA-L4", 24 * 1024**3, 1, 0),),
    node_groups=(FoundGroup("gpu", {"pool": "gpu"}, 2, NodeShape(4.0, 1024, "NVIDIA-L4", 1), "g6.xlarge"),),
    warnings=("no metrics server",),
)


class BroughtContract:
    """A part of `StoreContract`, apart for its length alone."""

    async def test_clusters_that_are_there_oldest_first(self, store: Store, second: Store) -> None:
        rows = [cluster(2), cluster(1), replace(cluster(3), removed_at=NOW), cluster(4, "org_b")]
        await store.commit([Insert(row) for row in rows])
        assert [row.id for row in await second.clusters("org_a")] == ["cls_0001", "cls_0002"]
        assert [row.id for row in await second.clusters("org_b")] == ["cls_0004"]
        assert await second.clusters("org_c") == []
        removed = await store.cluster("cls_0003", "org_a")
        assert removed is not None
        assert removed.removed_at == NOW

    async def test_nothing_brought_along_crosses_organizations(self, store: Store) -> None:
        await store.commit([Insert(cluster()), Insert(node_group()), Insert(model_version())])
        assert await store.cluster("cls_0001", "org_b") is None
        assert await store.model_version("mdl_0001", "org_b") is None
        assert await store.node_group("ngp_0001", "org_b") is None
        assert await store.node_groups("org_b") == []
        assert await store.node_groups("org_b", "cls_0001") == []
        assert (await store.model_versions("org_b", None, 10)).items == ()

    async def test_a_report_is_kept_as_it_was(self, store: Store) -> None:
        await store.commit([Insert(cluster())])
        checked = replace(cluster(), report=_REPORT, version=1)
        await store.commit([Update(checked)])
        assert await store.cluster("cls_0001", "org_a") == replace(checked, version=2)
        with pytest.raises(StaleWrite):
            await store.commit([Update(replace(checked, report=None))])

    async def test_a_removed_cluster_holds_no_name(self, store: Store) -> None:
        await store.commit([Insert(cluster()), Insert(replace(cluster(5, "org_b"), name="name-1"))])
        removed = replace(cluster(), removed_at=after(9), version=1)
        await store.commit([Update(removed)])
        heir = replace(cluster(2), name="name-1")
        await store.commit([Insert(heir)])
        with pytest.raises(AlreadyExists) as caught:
            await store.commit([Insert(replace(cluster(3), name="name-1"))])
        assert (caught.value.kind, caught.value.key) == ("cluster", "name-1")
        # The removed one can be written while another has its name.
        await store.commit([Update(replace(removed, report=_REPORT, version=2))])
        assert await store.clusters("org_a") == [replace(heir, version=1)]

    async def test_node_groups_of_a_cluster_oldest_first(self, store: Store) -> None:
        rows = [
            node_group(3),
            node_group(1),
            node_group(2, cluster_id="cls_0002"),
            replace(node_group(4), removed_at=NOW),
            node_group(5, "org_b"),
        ]
        await store.commit([Insert(row) for row in rows])
        assert [row.id for row in await store.node_groups("org_a")] == ["ngp_0001", "ngp_0002", "ngp_0003"]
        assert [row.id for row in await store.node_groups("org_a", "cls_0001")] == ["ngp_0001", "ngp_0003"]
        assert [row.id for row in await store.node_groups("org_a", "cls_0009")] == []

    async def test_a_node_group_goes_and_comes_back(self, store: Store) -> None:
        group = replace(
            node_group(), price_per_hour=1.5, max_nodes=3, shape=NodeShape(4.0, 2**34, "L4", 1, 2**34)
        )
        await store.commit([Insert(group)])
        assert await store.node_groups("org_a") == [replace(group, version=1)]
        await store.commit([Update(replace(group, removed_at=NOW, version=1))])
        assert await store.node_groups("org_a") == []
        removed = await store.node_group("ngp_0001", "org_a")
        assert removed is not None
        assert removed.removed_at == NOW
        await store.commit([Update(replace(group, version=2))])
        assert await store.node_groups("org_a", "cls_0001") == [replace(group, version=3)]

    async def test_a_name_and_version_is_one_model(self, store: Store) -> None:
        first = model_version()
        await store.commit([Insert(first)])
        others = [
            replace(model_version(2), name=first.name, model_version="2.0"),
            replace(model_version(3, "org_b"), name=first.name),
            # Put together they read alike; they are not the same.
            replace(model_version(4), name="a b", model_version="c"),
            replace(model_version(5), name="a", model_version="b c"),
        ]
        await store.commit([Insert(row) for row in others])
        heir = replace(model_version(6), name=first.name)
        with pytest.raises(AlreadyExists) as caught:
            await store.commit([Insert(heir)])
        assert (caught.value.kind, caught.value.key) == ("model_version", "name-1 1.0")
        await store.commit([Update(replace(first, removed_at=NOW, version=1))])
        await store.commit([Insert(heir)])
        removed = await store.model_version("mdl_0001", "org_a")
        assert removed is not None
        assert removed.removed_at == NOW

    async def test_model_versions_in_pages_from_the_newest(self, store: Store) -> None:
        rows = [model_version(n) for n in range(1, 6)]
        rows[2] = replace(rows[2], removed_at=NOW)
        await store.commit([Insert(row) for row in (*rows, model_version(9, "org_b"))])
        first = await store.model_versions("org_a", None, 3)
        assert [row.id for row in first.items] == ["mdl_0005", "mdl_0004", "mdl_0002"]
        last = await store.model_versions("org_a", first.next_cursor, 3)
        assert [row.id for row in last.items] == ["mdl_0001"]
        assert last.next_cursor is None
        with pytest.raises(ValueError, match="cursor"):
            await store.model_versions("org_a", "x", 3)

    async def test_of_two_clusters_of_one_name_at_once_one_is_there(
        self, store: Store, second: Store
    ) -> None:
        rows = [replace(cluster(n), name="same") for n in (1, 2)]
        outcomes = await asyncio.gather(
            *(at.commit([Insert(row)]) for row, at in zip(rows, (store, second), strict=True)),
            return_exceptions=True,
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AlreadyExists", "NoneType"]
        assert len(await store.clusters("org_a")) == 1
