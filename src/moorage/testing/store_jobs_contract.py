"""What every store must do about jobs: a part of the store's contract.

Apart from `store_contract` for its length alone; `StoreContract` there is the class to subclass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from moorage.domain.job import (
    Job,
    JobPayload,
    JobState,
    Output,
    begun,
    cancelled,
    ended,
    input_id,
    output_id,
)
from moorage.domain.job_view import JobCounts
from moorage.errors import StaleWrite
from moorage.ports.store import Backlog, Insert, Store, Update
from moorage.testing.store_rows import NOW, after, job, job_input, lease


def ids(jobs: Sequence[Job]) -> list[str]:
    return [found.id for found in jobs]


async def read_job(store: Store, id_: str = "job-0001") -> Job:
    found = await store.job(id_, "org_a")
    assert found is not None
    return found


class JobContract:
    # -- reads

    async def test_a_job_is_its_organizations(self, store: Store) -> None:
        await store.commit([Insert(job())])
        assert await store.job("job-0001", "org_b") is None
        assert await store.job("job-0001", "org_a") is not None

    async def test_jobs_are_counted_by_state_and_the_queue_by_bytes(self, store: Store) -> None:
        assert await store.job_counts("dep_0001") == JobCounts({})
        assert await store.job_backlog("dep_0001") == Backlog()
        done = replace(ended(begun(job(3), after(4)), Output("1"), after(5), 0.0), retries=2)
        rows = [job(1), job(2), done, replace(begun(job(4), after(5)), retries=1), job(5, "dep_0002")]
        await store.commit([Insert(row) for row in rows])
        counts = await store.job_counts("dep_0001")
        states = {JobState.IN_QUEUE: 2, JobState.COMPLETED: 1, JobState.IN_PROGRESS: 1}
        assert (dict(counts.by_state), counts.retried) == (states, 3)
        assert await store.job_backlog("dep_0001") == Backlog(2, 20)

    async def test_what_is_queued_is_listed_oldest_first(self, store: Store) -> None:
        asleep = replace(job(1), due_at=None)
        running = begun(job(4), after(5))
        await store.commit([Insert(row) for row in (job(3), asleep, running, job(2, "dep_0002"))])
        await store.claim_jobs({"dep_0001": 1}, lease("t"), after(3))
        assert ids(await store.queued_jobs("dep_0001", 9)) == ["job-0001", "job-0003"]
        assert ids(await store.queued_jobs("dep_0001", 1)) == ["job-0001"]

    # -- claims

    async def test_a_claim_takes_from_each_queue_what_was_asked_for(self, store: Store) -> None:
        await store.commit([Insert(job(n, f"dep_{n % 2}")) for n in range(10)])
        assert await store.claim_jobs({}, lease("t0"), after(20)) == []
        claimed = await store.claim_jobs({"dep_0": 2, "dep_1": 3, "dep_none": 5}, lease("t1"), after(20))
        assert ids(claimed) == ["job-0000", "job-0002", "job-0001", "job-0003", "job-0005"]
        assert claimed[0] == replace(job(0, "dep_0"), version=1)
        rest = await store.claim_jobs({"dep_0": 9, "dep_1": 9}, lease("t2"), after(20))
        assert ids(rest) == ["job-0004", "job-0006", "job-0008", "job-0007", "job-0009"]

    async def test_low_priority_waits_for_the_others(self, store: Store) -> None:
        rows = [job(1, low_priority=True), job(3), job(2)]
        await store.commit([Insert(row) for row in rows])
        claimed = await store.claim_jobs({"dep_0001": 2}, lease("t1"), after(9))
        assert ids(claimed) == ["job-0002", "job-0003"]
        assert ids(await store.claim_jobs({"dep_0001": 2}, lease("t2"), after(9))) == ["job-0001"]

    async def test_queues_are_those_with_something_to_claim(self, store: Store) -> None:
        await store.commit([Insert(job(n, f"dep_{n}")) for n in range(3)])
        await store.commit([Insert(replace(job(7, "dep_7"), due_at=None)), Insert(job(8, "dep_0"))])
        assert sorted(await store.job_queues(after(1))) == ["dep_0", "dep_1"]
        await store.claim_jobs({"dep_0": 1, "dep_1": 1}, lease("t", 30), after(2))
        assert await store.job_queues(after(2)) == ["dep_2"]
        assert sorted(await store.job_queues(after(9))) == ["dep_0", "dep_2"]
        assert sorted(await store.job_queues(after(30))) == ["dep_0", "dep_1", "dep_2"]

    async def test_job_claims_at_once_never_overlap(self, store: Store, second: Store) -> None:
        await store.commit([Insert(job(n, f"dep_{n % 3}")) for n in range(60)])
        wanted = {f"dep_{n}": 2 for n in range(3)}
        claims = await asyncio.gather(
            *([store, second][n % 2].claim_jobs(wanted, lease(f"t{n}", 90), after(60)) for n in range(12))
        )
        assert sorted(id_ for claim in claims for id_ in ids(claim)) == [f"job-{n:04d}" for n in range(60)]

    async def test_what_was_begun_is_claimed_again_after_its_lease(self, store: Store) -> None:
        await store.commit([Insert(job())])
        [mine] = await store.claim_jobs({"dep_0001": 1}, lease("t1", 30), after(2))
        await store.commit([Update(begun(mine, after(2)), lease="t1")])
        assert await store.claim_jobs({"dep_0001": 1}, lease("t2"), after(29)) == []
        [again] = await store.claim_jobs({"dep_0001": 1}, lease("t2", 90), after(30))
        assert (again.state, again.version) == (JobState.IN_PROGRESS, 2)
        with pytest.raises(StaleWrite):
            await store.commit([Update(mine.stored(), lease="t1")])

    async def test_who_needs_no_lease_may_end_it(self, store: Store) -> None:
        """A cancel: the holder learns that it holds nothing any more, and its write is refused."""
        await store.commit([Insert(job(1)), Insert(job(2))])
        mine, other = await store.claim_jobs({"dep_0001": 2}, lease("t1"), after(2))
        held = {"job-0001": "t1", "job-0002": "t1", "job-0009": "t1"}
        assert await store.jobs_held(held) == {"job-0001", "job-0002"}
        assert await store.jobs_held({"job-0001": "t0"}) == frozenset()
        assert await store.jobs_held({}) == frozenset()
        await store.commit([Update(cancelled(mine, after(3)), release=True)])
        assert await store.jobs_held(held) == {"job-0002"}
        assert await store.renew("jobs", held, after(60)) == {"job-0002"}
        with pytest.raises(StaleWrite):
            await store.commit([Update(ended(mine, Output("1"), after(3), 0.0), lease="t1")])
        await store.commit([Update(ended(other, Output("1"), after(3), 0.0), lease="t1", release=True)])
        assert (await read_job(store)).state is JobState.CANCELLED

    # -- wakes

    async def test_a_wake_makes_a_sleeping_queue_due(self, store: Store) -> None:
        over = cancelled(job(3), after(4))
        rows = [replace(job(1), due_at=None), job(50), over, replace(job(4, "dep_2"), due_at=None)]
        await store.commit([Insert(row) for row in rows])
        assert await store.job_queues(after(9)) == []
        await store.wake_jobs(["dep_0001", "dep_none"], after(9))
        claimed = await store.claim_jobs({"dep_0001": 9, "dep_2": 9}, lease("t"), after(9))
        assert [(found.id, found.due_at) for found in claimed] == [
            ("job-0001", after(9)),
            ("job-0050", after(9)),
        ]

    async def test_what_was_woken_together_keeps_its_order(self, store: Store) -> None:
        rows = [replace(job(n), id=f"job-{9 - n}", due_at=None) for n in range(1, 5)]
        await store.commit([Insert(row) for row in rows])
        await store.wake_jobs(["dep_0001"], after(9))
        claimed = await store.claim_jobs({"dep_0001": 9}, lease("t"), after(9))
        assert ids(claimed) == ["job-8", "job-7", "job-6", "job-5"]

    async def test_a_wake_does_not_bring_back_what_its_holder_ends(self, store: Store) -> None:
        await store.commit([Insert(job())])
        [mine] = await store.claim_jobs({"dep_0001": 1}, lease("t1"), after(2))
        running = begun(mine, after(2))
        await store.commit([Update(running, lease="t1")])
        await store.wake_jobs(["dep_0001"], after(3))
        done = ended(running.stored(), Output("1"), after(4), 0.0)
        await store.commit([Update(done, lease="t1", release=True)])
        assert await store.job_queues(after(99)) == []
        assert (await read_job(store)).due_at is None

    async def test_a_wake_of_what_is_held_outlives_the_holders_write(self, store: Store) -> None:
        await store.commit([Insert(job())])
        [mine] = await store.claim_jobs({"dep_0001": 1}, lease("t1"), after(2))
        await store.wake_jobs(["dep_0001"], after(3))
        await store.commit([Update(replace(mine, due_at=None), lease="t1", release=True)])
        [again] = await store.claim_jobs({"dep_0001": 1}, lease("t2"), after(4))
        await store.commit([Update(replace(again, due_at=None), lease="t2", release=True)])
        assert await store.claim_jobs({"dep_0001": 1}, lease("t3"), after(99)) == []

    # -- time

    async def test_next_job_is_the_next_moment_at_which_something_happens(self, store: Store) -> None:
        assert await store.next_job(NOW) is None
        await store.commit([Insert(job(5)), Insert(job(9))])
        assert await store.next_job(NOW) == after(5)
        assert await store.next_job(after(5)) == after(9)
        assert await store.next_job(after(9)) == after(3605), "the first expires"
        await store.claim_jobs({"dep_0001": 1}, lease("t", 30), after(6))
        assert await store.next_job(after(9)) == after(30)
        assert await store.next_job(after(3609)) is None

    async def test_what_expires_is_found_whoever_holds_it(self, store: Store) -> None:
        rows = [job(3), replace(job(1), due_at=None), cancelled(job(2), after(4)), job(500)]
        await store.commit([Insert(row) for row in rows])
        await store.claim_jobs({"dep_0001": 1}, lease("t", 9000), after(6))
        assert await store.expired_jobs(after(3600), 9) == []
        assert ids(await store.expired_jobs(after(3603), 9)) == ["job-0001", "job-0003"]
        assert ids(await store.expired_jobs(after(3603), 1)) == ["job-0001"]

    async def test_what_is_over_is_forgotten_with_all_that_it_had(self, store: Store) -> None:
        sync = replace(job(2), sync=True)
        await store.commit([Insert(row) for row in (job(1), job_input(1), sync, job_input(2), job(3))])
        claimed = await store.claim_jobs({"dep_0001": 2}, lease("t"), after(3))
        for found in claimed:
            result = JobPayload(output_id(found.id), "1")
            done = ended(begun(found, after(3)), Output("1"), after(10), 0.0)
            await store.commit([Update(done, lease="t", release=True), Insert(result)])
        assert await store.forget_jobs(after(69), 9) == 0
        assert await store.forget_jobs(after(70), 9) == 1
        assert await store.job("job-0002", "org_a") is None
        for payload in (input_id("job-0002"), output_id("job-0002")):
            assert await store.job_payload(payload) is None
        assert await store.job_payload(output_id("job-0001")) is not None
        await store.commit([Update(cancelled(await read_job(store, "job-0003"), after(10)))])
        assert await store.forget_jobs(after(9999), 1) == 1
        assert await store.forget_jobs(after(9999), 9) == 1
        assert await store.job_payload(input_id("job-0001")) is None
        assert await store.forget_jobs(after(9999), 9) == 0
