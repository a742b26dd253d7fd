"""What every store must do, as tests that anybody's store can run.

Subclass `StoreContract` in a test module, give it the two fixtures marked as abstract below, and pytest runs
the suite. It checks the docstrings of `moorage.ports.store.Store` from outside, through the port alone. Needs
pytest with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from moorage.domain.compute import Estimate, Offer, PlacementPolicy, Rung
from moorage.domain.delivery import DeliveryState, Receiver, WebhookSecret
from moorage.domain.deployment import Attempt, Deployment, DeploymentSpec, Phase
from moorage.domain.identity import IdempotencyRecord, Organization
from moorage.domain.model import ContainerImage, UploadedModel
from moorage.errors import AlreadyExists, StaleWrite
from moorage.ports.store import (
    Append,
    DeliveryFilter,
    DeploymentFilter,
    Insert,
    Page,
    Row,
    Store,
    Update,
    Write,
)
from moorage.testing.store_clusters_contract import BroughtContract
from moorage.testing.store_jobs_contract import JobContract
from moorage.testing.store_leases_contract import LeaseContract
from moorage.testing.store_rows import (
    NOW,
    after,
    api_key,
    cluster,
    credential,
    delivery,
    deployment,
    event,
    in_phase,
    job,
    job_input,
    lease,
    model_version,
    node_group,
    read_deployment,
    user,
)

T = TypeVar("T")

ALL = DeploymentFilter()


async def all_pages(turn: Callable[[str | None], Awaitable[Page[T]]]) -> list[T]:
    items: list[T] = []
    cursor = None
    while True:
        page = await turn(cursor)
        items += page.items
        if (cursor := page.next_cursor) is None:
            return items


class StoreContract(BroughtContract, JobContract, LeaseContract):
    """Subclass it and give it `store` and `second`."""

    # -- units of work

    @pytest.mark.parametrize(
        ("row", "read"),
        [
            (Organization("org_a", "Acme", NOW), lambda s: s.organization("org_a")),
            (user(), lambda s: s.user_named("ada")),
            (api_key(), lambda s: s.api_key("key_1", "org_a")),
            (api_key(), lambda s: s.api_key_by_hash(f"{1:064x}")),
            (credential(), lambda s: s.provider_credential("crd_1")),
            (cluster(), lambda s: s.cluster("cls_0001", "org_a")),
            (node_group(), lambda s: s.node_group("ngp_0001", "org_a")),
            (model_version(), lambda s: s.model_version("mdl_0001", "org_a")),
            (
                IdempotencyRecord("org_a k", "org_a", "f", 202, "sealed", NOW),
                lambda s: s.idempotency_record("org_a k"),
            ),
            (deployment(), lambda s: s.deployment("dep_0001")),
            (deployment(), lambda s: s.deployment_named("org_a", "name-1")),
            (delivery(), lambda s: s.delivery("msg_0001", "org_a")),
            (job(), lambda s: s.job("job-0001", "org_a")),
            (job_input(), lambda s: s.job_payload("job-0001/input")),
            (Receiver("org_a https://a", "org_a", "https://a", NOW), lambda s: s.receiver("org_a https://a")),
            (WebhookSecret("org_a", "sealed", NOW, "old", after(1)), lambda s: s.webhook_secret("org_a")),
        ],
    )
    async def test_inserted_row_reads_as_version_1(
        self, store: Store, row: Row, read: Callable[[Store], Awaitable[Row | None]]
    ) -> None:
        assert await read(store) is None
        await store.commit([Insert(row)])
        assert await read(store) == replace(row, version=1)

    async def test_credentials_are_listed_by_organization_and_provider(self, store: Store) -> None:
        rows = (credential(2), credential(1), credential(3, provider="other"), credential(4, "org_b"))
        await store.commit([Insert(row) for row in rows])

        async def ids(**where: str) -> list[str]:
            return [row.id for row in await store.provider_credentials(**where)]

        assert await ids(organization_id="org_a") == ["crd_1", "crd_2", "crd_3"]
        assert await ids(provider="runpod") == ["crd_1", "crd_2", "crd_4"]
        assert await ids(organization_id="org_a", provider="runpod") == ["crd_1", "crd_2"]
        assert await ids(organization_id="org_c") == []

    async def test_rows_are_there_for_the_next_process(self, store: Store, second: Store) -> None:
        await store.commit([Insert(deployment()), Append(event())])
        assert await second.deployment("dep_0001") == replace(deployment(), version=1)
        assert await second.events("dep_0001", None, 10) == [event()]

    async def test_update_counts_versions_and_a_stale_one_changes_nothing(self, store: Store) -> None:
        await store.commit([Insert(deployment())])
        first = await read_deployment(store)
        await store.commit([Update(in_phase(first, Phase.UPDATING))])
        with pytest.raises(StaleWrite):
            await store.commit([Update(in_phase(first, Phase.FAILED))])
        assert await store.deployment("dep_0001") == replace(in_phase(first, Phase.UPDATING), version=2)

    async def test_update_of_what_is_not_there_is_stale(self, store: Store) -> None:
        with pytest.raises(StaleWrite):
            await store.commit([Update(replace(deployment(), version=1))])

    async def test_of_many_updates_at_once_one_passes(self, store: Store, second: Store) -> None:
        await store.commit([Insert(deployment())])
        row = await read_deployment(store)
        tries = [replace(row, created_by=f"usr_{n}") for n in range(20)]
        results = await asyncio.gather(
            *(s.commit([Update(new)]) for new, s in zip(tries, [store, second] * 10, strict=True)),
            return_exceptions=True,
        )
        assert results.count(None) == 1
        assert sum(isinstance(result, StaleWrite) for result in results) == 19
        assert await read_deployment(store) == replace(tries[results.index(None)], version=2)

    @pytest.mark.parametrize(
        ("last", "error"),
        [
            (Insert(deployment(9)), AlreadyExists),
            (Append(event(9)), AlreadyExists),
            (Update(replace(deployment(9), version=7)), StaleWrite),
        ],
    )
    async def test_a_unit_is_written_whole_or_not_at_all(
        self, store: Store, last: Write, error: type[Exception]
    ) -> None:
        await store.commit([Insert(deployment(9)), Append(event(9))])
        unit: list[Write] = [
            Insert(deployment()),
            Update(replace(in_phase(deployment(9), Phase.FAILED), version=1)),
            Append(event(1)),
            Insert(delivery()),
        ]
        with pytest.raises(error):
            await store.commit([*unit, last])
        assert await store.deployment("dep_0001") is None
        assert await store.events("dep_0001", None, 10) == [event(9)]
        assert await store.delivery("msg_0001", "org_a") is None
        assert await store.deployment("dep_0009") == replace(deployment(9), version=1)
        assert await store.claim_deliveries(lease("t"), after(100), 10) == []

    async def test_a_failing_unit_takes_no_other_with_it(self, store: Store) -> None:
        await store.commit([Insert(deployment(0))])
        units: list[list[Write]] = [
            [Insert(deployment(n)), Append(event(n, f"dep_{n:04d}"))] for n in range(30)
        ]
        results = await asyncio.gather(*(store.commit(unit) for unit in units), return_exceptions=True)
        assert isinstance(results[0], AlreadyExists)
        assert results[1:] == [None] * 29
        for n in range(1, 30):
            assert await store.events(f"dep_{n:04d}", None, 10) == [event(n, f"dep_{n:04d}")]
        assert await store.events("dep_0000", None, 10) == []

    @pytest.mark.parametrize(
        ("row", "clashing", "kind", "key"),
        [
            (deployment(), replace(deployment(2), id="dep_0001"), "deployment", "dep_0001"),
            (deployment(), replace(deployment(2), name="name-1"), "deployment", "name-1"),
            (user(), user(2), "user", "ada"),
            (api_key(), replace(api_key(2), hash=f"{1:064x}"), "api_key", "key_2"),
            (cluster(), replace(cluster(2), name="name-1"), "cluster", "name-1"),
            (node_group(), replace(node_group(2), id="ngp_0001"), "node_group", "ngp_0001"),
            (model_version(), replace(model_version(2), name="name-1"), "model_version", "name-1 1.0"),
            (
                IdempotencyRecord("org_a k", "org_a", "f", 202, "s", NOW),
                IdempotencyRecord("org_a k", "org_a", "g", 202, "s", NOW),
                "idempotency_record",
                "org_a k",
            ),
        ],
    )
    async def test_a_key_that_is_taken_is_named(
        self, store: Store, row: Row, clashing: Row, kind: str, key: str
    ) -> None:
        await store.commit([Insert(row)])
        with pytest.raises(AlreadyExists) as caught:
            await store.commit([Insert(clashing)])
        assert (caught.value.kind, caught.value.key) == (kind, key)

    # -- names

    @pytest.mark.parametrize("phase", [Phase.DELETED, Phase.FAILED])
    async def test_a_name_is_free_when_its_deployment_is_over(self, store: Store, phase: Phase) -> None:
        await store.commit([Insert(deployment())])
        await store.commit([Update(in_phase(await read_deployment(store), phase))])
        assert await store.deployment_named("org_a", "name-1") is None
        heir = replace(deployment(2), name="name-1")
        await store.commit([Insert(heir)])
        assert await store.deployment_named("org_a", "name-1") == replace(heir, version=1)
        # The failed one is deleted while another has its name: that is no clash.
        over = await read_deployment(store)
        await store.commit([Update(replace(over, deleted_at=after(5)))])
        await store.commit([Update(in_phase(await read_deployment(store), Phase.DELETING))])
        assert await store.deployment_named("org_a", "name-1") == replace(heir, version=1)

    async def test_a_deployment_that_is_being_deleted_holds_its_name(self, store: Store) -> None:
        await store.commit([Insert(deployment())])
        await store.commit([Update(replace(await read_deployment(store), deleted_at=NOW))])
        with pytest.raises(AlreadyExists):
            await store.commit([Insert(replace(deployment(2), name="name-1"))])

    async def test_organizations_have_names_of_their_own(self, store: Store) -> None:
        await store.commit([Insert(deployment())])
        await store.commit([Insert(replace(deployment(2, "org_b"), name="name-1"))])
        found = await store.deployment_named("org_b", "name-1")
        assert found is not None
        assert found.id == "dep_0002"

    # -- reads

    async def test_no_read_crosses_organizations(self, store: Store) -> None:
        await store.commit([Insert(deployment()), Insert(delivery()), Insert(api_key())])
        assert await store.deployment("dep_0001", "org_b") is None
        assert await store.deployment("dep_0001", "org_a") is not None
        assert await store.delivery("msg_0001", "org_b") is None
        assert await store.api_key("key_1", "org_b") is None
        assert await store.api_keys("org_b") == []
        assert await store.deployment_named("org_b", "name-1") is None
        assert (await store.deployments("org_b", ALL, None, 10)).items == ()
        assert (await store.deliveries("org_b", DeliveryFilter(), None, 10)).items == ()

    async def test_pages_go_from_the_newest_and_stay_put_while_rows_arrive(self, store: Store) -> None:
        await store.commit([Insert(deployment(n)) for n in range(10, 20)])
        # Two of one instant are told apart by their ids.
        twin = replace(deployment(10), id="dep_0010b", name="twin")
        await store.commit([Insert(twin), Insert(deployment(50, "org_b"))])
        arriving = iter(range(20, 40))

        async def turn(cursor: str | None) -> Page[Deployment]:
            await store.commit([Insert(deployment(next(arriving)))])
            return await store.deployments("org_a", ALL, cursor, 3)

        ids = [row.id for row in await all_pages(turn)]
        assert ids == ["dep_0020", *(f"dep_{n:04d}" for n in range(19, 10, -1)), "dep_0010b", "dep_0010"]

    async def test_the_last_page_has_no_cursor(self, store: Store) -> None:
        await store.commit([Insert(deployment(n)) for n in range(4)])
        page = await store.deployments("org_a", ALL, None, 2)
        assert page.next_cursor is not None
        assert (await store.deployments("org_a", ALL, page.next_cursor, 2)).next_cursor is None

    @pytest.mark.parametrize("cursor", ["", "x", "MTIz", "é", "%%%%", "LTEuZGVw", "MTIzLmRlcA==", "a" * 3000])
    async def test_a_foreign_cursor_is_a_value_error(self, store: Store, cursor: str) -> None:
        await store.commit([Insert(deployment())])
        with pytest.raises(ValueError, match="cursor"):
            await store.deployments("org_a", ALL, cursor, 10)
        with pytest.raises(ValueError, match="cursor"):
            await store.deliveries("org_a", DeliveryFilter(), cursor, 10)

    async def test_filters(self, store: Store) -> None:
        offer = Offer("o", "managed", None, 0, 1, 1, 0.1, "book", "2026-01-01")
        attempt = Attempt(1, Rung(offer, "onnx", Estimate(1, 1.0, ())), "mrg-x", NOW)
        placed = deployment(1)
        placed = replace(placed, status=replace(placed.status, attempt=attempt))
        policy = PlacementPolicy("runpod")
        wished = replace(deployment(2), spec=DeploymentSpec(UploadedModel("mdl_1"), policy))
        image = replace(deployment(3, phase=Phase.FAILED), spec=DeploymentSpec(ContainerImage("img:1")))
        gone = replace(deployment(4), deleted_at=NOW)
        await store.commit([Insert(row) for row in (placed, wished, image, gone)])
        phases = DeploymentFilter(frozenset({Phase.FAILED, Phase.DELETING}))
        for where, numbers in [
            (ALL, [4, 3, 2, 1]),
            (phases, [4, 3]),
            (replace(phases, name="name-3"), [3]),
            (DeploymentFilter(provider="managed"), [1]),
            (DeploymentFilter(provider="runpod"), [2]),
            (DeploymentFilter(model="acme/digits"), [4, 1]),
            (DeploymentFilter(model="mdl_1"), [2]),
            (DeploymentFilter(model="img:1"), [3]),
            (DeploymentFilter(name="name"), []),
        ]:
            page = await store.deployments("org_a", where, None, 10)
            assert [row.id for row in page.items] == [f"dep_{n:04d}" for n in numbers], where

    async def test_delivery_filters(self, store: Store) -> None:
        other = replace(delivery(2, subject="dep_0002"), state=DeliveryState.EXHAUSTED)
        await store.commit([Insert(delivery(1)), Insert(other), Insert(delivery(3))])
        for where, numbers in [
            (DeliveryFilter(), [3, 2, 1]),
            (DeliveryFilter(state="pending"), [3, 1]),
            (DeliveryFilter(subject_id="dep_0002"), [2]),
            (DeliveryFilter("pending", "dep_0002"), []),
        ]:
            page = await store.deliveries("org_a", where, None, 10)
            assert [row.id for row in page.items] == [f"msg_{n:04d}" for n in numbers], where

    async def test_serving_are_those_that_are_not_over(self, store: Store) -> None:
        over, asleep = deployment(1), deployment(2, "org_b")
        over = replace(over, status=replace(over.status, phase=Phase.FAILED))
        asleep = replace(asleep, status=replace(asleep.status, phase=Phase.HIBERNATED))
        await store.commit([Insert(over), Insert(asleep)])
        assert await store.serving() == [replace(asleep, version=1)]
        await store.commit([Update(replace(asleep, version=1, status=over.status))])
        assert await store.serving() == []

    async def test_serving_of_some_ids_and_the_versions_of_all(self, store: Store) -> None:
        rows = [deployment(n) for n in (1, 2, 3)]
        over = replace(rows[0], status=replace(rows[0].status, phase=Phase.DELETED))
        await store.commit([Insert(row) for row in (over, *rows[1:])])
        await store.commit([Update(replace(rows[2], version=1))])
        assert await store.serving_versions() == {"dep_0002": 1, "dep_0003": 2}
        found = await store.serving(["dep_0003", "dep_0001", "dep_0009"])
        assert [(row.id, row.version) for row in found] == [("dep_0003", 2)]
        assert await store.serving([]) == []

    async def test_events_of_a_subject_in_order(self, store: Store) -> None:
        await store.commit([Append(event(n)) for n in (3, 1)])
        await store.commit([Append(event(2)), Append(event(4, "dep_0002"))])
        assert await store.events("dep_0001", None, 10) == [event(1), event(2), event(3)]
        assert await store.events("dep_0001", "evt_0001", 1) == [event(2)]
        assert await store.events("dep_0001", "evt_0003", 10) == []

    async def test_keys_of_an_organization_oldest_first(self, store: Store) -> None:
        await store.commit([Insert(api_key(2)), Insert(api_key(1)), Insert(api_key(3, "org_b"))])
        assert [key.id for key in await store.api_keys("org_a")] == ["key_1", "key_2"]
