"""What every store must do as an archive (`moorage.ports.store.Archive`), as tests that anybody's can run.

`ArchiveContract` needs an archive alone. `RestoredStoreContract` asks a store whether it can serve what was
restored into it, and keep in an archive what was written to it. Subclass both, with the fixtures that they
name. Needs pytest with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from moorage.copying import canonical
from moorage.domain.deployment import Deployment, Phase
from moorage.domain.job import JobState, input_id
from moorage.errors import AlreadyExists, StoreError
from moorage.ports.store import (
    Append,
    Archive,
    Collection,
    DeliveryFilter,
    DeploymentFilter,
    Insert,
    Row,
    Stored,
    Update,
    is_routed,
)
from moorage.testing import archive_rows
from moorage.testing.archive_rows import COLLECTIONS, everything, renamed_away, stored
from moorage.testing.store_rows import (
    after,
    api_key,
    cluster,
    delivery,
    deployment,
    event,
    in_phase,
    job,
    job_input,
    lease,
    model_version,
    user,
)

if TYPE_CHECKING:
    from moorage.open_store import OpenStore


async def all_of(archive: Archive, collection: Collection, limit: int = 500) -> list[Stored]:
    """Page by page."""
    found: list[Stored] = []
    while page := await archive.stored(collection, found[-1].key if found else None, limit):
        assert len(page) <= limit
        found += page
    return found


def in_order(rows: Sequence[Stored]) -> list[Stored]:
    """As UTF-8 would sort them, byte by byte."""
    return sorted(rows, key=lambda row: row.key.encode())


def version(row: Row, number: int) -> Stored:
    return stored(replace(row, version=number))


class ArchiveContract:
    """Whoever passes it brings the fixture `archive`, an empty one."""

    async def test_what_is_restored_is_stored(self, archive: Archive) -> None:
        for number, collection in enumerate(COLLECTIONS):
            rows = in_order(everything()[collection])
            assert len(rows) > 2
            await archive.restore(collection, random.Random(collection).sample(rows, len(rows)))
            found = await all_of(archive, collection)
            assert [row.key for row in found] == [row.key for row in rows]
            assert found == rows
            # Equal is not enough: 1 == 1.0 == True.
            assert [canonical(row) for row in found] == [canonical(row) for row in rows]
            for other in COLLECTIONS[number + 1 :]:
                assert await archive.stored(other, None, 1) == []

    async def test_pages_follow_one_another(self, archive: Archive) -> None:
        for collection, given in everything().items():
            rows = in_order(given)
            await archive.restore(collection, rows)
            for limit in (1, 2, len(rows)):
                assert await all_of(archive, collection, limit) == rows
            # The key to begin after need not be there.
            assert list(await archive.stored(collection, rows[0].key + "!", 500)) == rows[1:]
            assert list(await archive.stored(collection, rows[-1].key, 500)) == []

    async def test_restoring_again_changes_nothing(self, archive: Archive) -> None:
        for collection, given in everything().items():
            rows = in_order(given)
            for part in (rows[:2], rows, rows):
                await archive.restore(collection, part)
            assert await all_of(archive, collection) == rows

    async def test_what_is_there_is_replaced_whatever_its_version(self, archive: Archive) -> None:
        await archive.restore("deployment", [version(deployment(1), 7), version(deployment(2), 3)])
        older = version(replace(deployment(1), due_at=None, name="other"), 5)
        failed = version(in_phase(deployment(2), Phase.FAILED), 4)
        await archive.restore("deployment", [older, failed])
        assert await all_of(archive, "deployment") == [older, failed]
        changed = replace(event(1), message="told otherwise")
        await archive.restore("event", [Stored(event(1)), Stored(event(2))])
        await archive.restore("event", [Stored(changed)])
        assert await all_of(archive, "event") == [Stored(changed), Stored(event(2))]

    async def test_a_name_goes_from_one_row_to_another(self, archive: Archive) -> None:
        await archive.restore("deployment", [version(deployment(1), 1)])
        over = version(in_phase(deployment(1), Phase.DELETED), 2)
        heir = version(replace(deployment(2), name="name-1"), 1)
        await archive.restore("deployment", [over, heir])
        assert await all_of(archive, "deployment") == [over, heir]

    async def test_all_or_none(self, archive: Archive) -> None:
        await archive.restore("deployment", [version(deployment(5), 1)])
        clashing = version(replace(deployment(3), name="name-5"), 1)
        with pytest.raises(StoreError):
            await archive.restore(
                "deployment", [version(deployment(1), 1), clashing, version(deployment(9), 1)]
            )
        assert await all_of(archive, "deployment") == [version(deployment(5), 1)]

    async def test_five_hundred_at_once(self, archive: Archive) -> None:
        rows = in_order([Stored(event(n, f"dep_{n % 7}")) for n in range(500)])
        await archive.restore("event", rows)
        assert await all_of(archive, "event", 499) == rows
        await archive.restore("event", [])

    async def test_a_row_of_megabytes(self, archive: Archive) -> None:
        row = Stored(replace(job_input(1), text="ä" * 1_500_000, version=1))
        await archive.restore("job_payload", [row])
        assert await archive.stored("job_payload", None, 1) == [row]
        small = Stored(replace(job_input(1), text="{}", version=2))
        await archive.restore("job_payload", [small])
        assert await archive.stored("job_payload", None, 1) == [small]


class RestoredStoreContract:
    """Whoever passes it brings the fixture `store`, an empty one that is an archive too."""

    async def test_what_was_committed_is_stored(self, store: OpenStore) -> None:
        row = deployment(1)
        others: tuple[Row, ...] = (delivery(1), user(), api_key(), job(1), job_input(1))
        await store.commit([Insert(row), *(Insert(other) for other in others), Append(event(1))])
        await store.commit([Update(replace(row, version=1, revision=2))])
        assert await all_of(store, "deployment") == [version(replace(row, revision=2), 2)]
        for collection, other in zip(
            ("delivery", "user", "api_key", "job", "job_payload"), others, strict=True
        ):
            assert await all_of(store, collection) == [version(other, 1)]  # type: ignore[arg-type]  # they are
        assert await all_of(store, "event") == [Stored(event(1))]

    async def test_a_wake_is_in_the_row(self, store: OpenStore) -> None:
        await store.commit([Insert(replace(deployment(1), due_at=None))])
        await store.wake(["dep_0001"], after(5))
        assert await all_of(store, "deployment") == [version(replace(deployment(1), due_at=after(5)), 1)]

    async def test_what_is_restored_is_due_and_free(self, store: OpenStore) -> None:
        """Also where a row was held before it was replaced."""
        await store.commit([Insert(deployment(1)), Insert(delivery(1)), Insert(job(1))])
        held = lease("before", 3600)
        assert await store.claim_deployments(held, after(10), 9)
        assert await store.claim_deliveries(held, after(10), 9)
        assert await store.claim_jobs({"dep_0001": 9}, held, after(10))
        await store.restore("deployment", everything()["deployment"])
        await store.restore("delivery", everything()["delivery"])
        await store.restore("job", everything()["job"])
        now, claim = after(1000), lease("after", 2000)
        for found, rows in (
            (await store.claim_deployments(claim, now, 99), (*archive_rows.deployments(), renamed_away())),
            (await store.claim_deliveries(claim, now, 99), archive_rows.deliveries()),
            (await store.claim_jobs({"dep_0001": 9, "dep_0002": 9}, claim, now), archive_rows.jobs()),
        ):
            assert {row.id for row in found} == {row.id for row in rows if row.due_at is not None}

    async def test_a_wake_from_before_is_forgotten(self, store: OpenStore) -> None:
        await store.commit([Insert(deployment(1))])
        await store.claim_deployments(lease("before"), after(10), 9)
        await store.wake(["dep_0001"], after(11))
        await store.restore("deployment", [version(deployment(1), 1)])
        (row,) = await store.claim_deployments(lease("after"), after(20), 9)
        await store.commit([Update(replace(row, due_at=after(500)), lease="after", release=True)])
        assert await store.next_due("deployments", after(21)) == after(500)

    async def test_names_are_held_and_free_as_they_were(self, store: OpenStore) -> None:
        await store.restore("deployment", everything()["deployment"])
        named = await store.deployment_named("org_a", "once-more")
        assert named is not None
        assert named.id == "dep_0013"
        assert await store.deployment_named("org_a", renamed_away().name) is None
        await store.commit([Insert(replace(deployment(70), name=renamed_away().name))])
        with pytest.raises(AlreadyExists, match="once-more"):
            await store.commit([Insert(replace(deployment(71), name="once-more"))])

    async def test_a_name_given_away_is_not_taken_back(self, store: OpenStore) -> None:
        await store.restore("deployment", [Stored(renamed_away(), holds_name=False)])
        await store.commit([Update(replace(renamed_away(), revision=2))])
        (kept,) = await all_of(store, "deployment")
        assert not kept.holds_name

    async def test_other_unique_keys_are_held_too(self, store: OpenStore) -> None:
        for collection in ("user", "api_key", "cluster", "model_version"):
            await store.restore(collection, everything()[collection])
        other_key = replace(api_key(99), hash=api_key(1).hash)
        same_model = replace(model_version(99), name="name-1", model_version="2.0")
        for row in (user(99), other_key, replace(cluster(99), name="once-more"), same_model):
            with pytest.raises(AlreadyExists):
                await store.commit([Insert(row)])

    async def test_names_of_the_removed_are_free(self, store: OpenStore) -> None:
        gone = replace(cluster(1), removed_at=after(1), version=2)
        model = replace(model_version(1), removed_at=after(1), version=2)
        await store.restore("cluster", [stored(gone)])
        await store.restore("model_version", [stored(model)])
        heir = replace(model_version(2), name="name-1")
        await store.commit([Insert(replace(cluster(2), name="name-1")), Insert(heir)])
        assert [row.id for row in await store.clusters("org_a")] == ["cls_0002"]
        assert [row.id for row in (await store.model_versions("org_a", None, 9)).items] == ["mdl_0002"]

    async def test_everything_serves(self, store: OpenStore) -> None:
        for collection, rows in everything().items():
            await store.restore(collection, rows)
        deployments: tuple[Deployment, ...] = (*archive_rows.deployments(), renamed_away())
        assert await store.serving() == in_order_of_ids(row for row in deployments if is_routed(row))
        page = await store.deployments("org_a", DeploymentFilter(), None, 500)
        ours = in_order_of_ids(row for row in deployments if row.organization_id == "org_a")
        assert in_order_of_ids(page.items) == ours
        for user_ in archive_rows.users():
            assert await store.user_named(user_.username) == user_
        for key in archive_rows.api_keys():
            assert await store.api_key_by_hash(key.hash) == key
        messages = await store.deliveries("org_a", DeliveryFilter(subject_id="dep_0001"), None, 500)
        assert {row.id for row in messages.items} == {"msg_0001", "msg_0002"}
        told = [row.id for row in await store.events("dep_0001", None, 500)]
        assert told == ["evt_0001", "evt_0003", "evt_0009"]
        counts = await store.job_counts("dep_0001")
        assert counts.by_state == {JobState.IN_QUEUE: 2, JobState.COMPLETED: 1}
        assert [row.id for row in await store.queued_jobs("dep_0001", 9)] == ["job-0001", "job-0002"]
        assert await store.forget_jobs(after(10**6), 9) == 1
        assert {row.key for row in await all_of(store, "job_payload")} == {input_id("job-0001")}
        for record in archive_rows.idempotency_records():
            assert await store.idempotency_record(record.id) == record


def in_order_of_ids(rows: Iterable[Deployment]) -> list[Deployment]:
    return sorted(rows, key=lambda row: row.id)
