"""Jobs: a queue for each deployment, so that a claim can be fair, and what a job's life ends with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

from moorage.adapters.firestore import queries
from moorage.adapters.firestore.bodies import Bodies
from moorage.adapters.firestore.changing import Decide, change_each
from moorage.adapters.firestore.database import Database, chunks
from moorage.adapters.firestore.documents import Found, parts_of, place_of, value_of
from moorage.adapters.firestore.kinds import JOB, JOB_PAYLOAD
from moorage.adapters.firestore.leases import Leases, woken
from moorage.adapters.firestore.queries import LEASE_FIELDS
from moorage.adapters.row_codec import from_micros, to_micros
from moorage.domain.job import Job, JobState, input_id, output_id
from moorage.domain.job_view import JobCounts
from moorage.ports.store import Backlog, Lease

_PAGE = 300  # documents of a search that is gone through to its end


class JobQueue:
    def __init__(self, database: Database, bodies: Bodies, leases: Leases) -> None:
        self._database = database
        self._bodies = bodies
        self._leases = leases
        self._turns = asyncio.Lock()  # as in `Leases`

    async def counts(self, deployment_id: str) -> JobCounts:
        """One answer for each state, of one moment each."""
        states = list(JobState)
        shape = queries.JOBS_IN_STATE
        totals = await asyncio.gather(
            *(self._database.total(shape.search(deployment_id=deployment_id, state=s.value)) for s in states)
        )
        by_state = {s: total["count"] for s, total in zip(states, totals, strict=True) if total["count"]}
        return JobCounts(by_state, sum(total["retries"] for total in totals))

    async def backlog(self, deployment_id: str) -> Backlog:
        search = queries.JOB_BACKLOG.search(deployment_id=deployment_id, state=JobState.IN_QUEUE.value)
        total = await self._database.total(search)
        return Backlog(total["count"], total["size"])

    async def queued(self, deployment_id: str, limit: int) -> Sequence[Job]:
        search = queries.QUEUED_JOBS.search(
            deployment_id=deployment_id, state=JobState.IN_QUEUE.value, limit=limit
        )
        return await self._jobs(await self._database.find(search))

    async def queues(self, now: datetime) -> Sequence[str]:
        """Page by page, each after the last deployment of the one before: a long queue costs one page."""
        ids: set[str] = set()
        last = ""
        while True:
            search = queries.JOB_QUEUES.search(deployment_id=last, claim_at=to_micros(now), limit=_PAGE)
            found = await self._database.find(search)
            ids.update(row.fields["deployment_id"] for row in found)
            if len(found) < _PAGE:
                return list(ids)
            last = max(ids)

    async def claim(self, wanted: Mapping[str, int], lease: Lease, now: datetime) -> Sequence[Job]:
        async with self._turns:
            claims = await asyncio.gather(
                *(self._claim(deployment_id, limit, lease, now) for deployment_id, limit in wanted.items())
            )
        return [job for jobs in claims for job in jobs]

    async def wake(self, deployment_ids: Sequence[str], now: datetime) -> None:
        """As `Leases.wake`; what is over sleeps on."""
        for deployment_id in deployment_ids:
            after = None
            while True:
                search = queries.UNENDED_JOBS.search(deployment_id=deployment_id, limit=_PAGE, after=after)
                found = await self._database.find(search)
                await change_each(self._database, found, LEASE_FIELDS, _woken_unless_over(now))
                if len(found) < _PAGE:
                    break
                after = {"expires_at": found[-1].fields["expires_at"], "__name__": found[-1].place.key}

    async def next_moment(self, after: datetime) -> datetime | None:
        at = to_micros(after)
        searches = [shape.search({shape.ranges[0]: at}, limit=1) for shape in queries.NEXT_MOMENTS]
        answers = await asyncio.gather(*(self._database.find(search) for search in searches))
        moments = [
            row.fields[search.shape.ranges[0]]
            for search, rows in zip(searches, answers, strict=True)
            for row in rows
        ]
        return from_micros(min(moments)) if moments else None

    async def expired(self, now: datetime, limit: int) -> Sequence[Job]:
        search = queries.EXPIRED_JOBS.search(expires_at=to_micros(now), limit=limit)
        return await self._jobs(await self._database.find(search))

    async def forget(self, now: datetime, limit: int) -> int:
        search = queries.FORGOTTEN_JOBS.search(forget_at=to_micros(now), limit=limit)
        jobs = await self._database.find(search)
        # A job goes last: if this is broken off, the next time finds what is left.
        for some in chunks(jobs, 100):
            ids = [make(row.fields["id"]) for row in some for make in (input_id, output_id)]
            payloads = await self._database.get(
                [place_of(JOB_PAYLOAD, id_) for id_ in ids], ("parts", "body_key")
            )
            parts = [part for row in payloads.values() for part in parts_of(row.fields)]
            await self._bodies.remove(parts)
            await self._bodies.remove([*payloads, *(row.place for row in some)])
        if not jobs:
            await self._bodies.remove_lost()
        return len(jobs)

    async def _claim(self, deployment_id: str, limit: int, lease: Lease, now: datetime) -> Sequence[Job]:
        async def search(count: int) -> Sequence[Found]:
            return await self._database.find(
                queries.DUE_JOBS.search(deployment_id=deployment_id, claim_at=to_micros(now), limit=count)
            )

        claimed = await self._leases.claim(JOB, search, lease, now, limit)
        return sorted(claimed, key=lambda job: (job.policy.low_priority, job.created_at, job.id))

    async def _jobs(self, found: Sequence[Found]) -> Sequence[Job]:
        bodies = await self._bodies.of(found)
        return [value_of(JOB, row, body) for row, body in zip(found, bodies, strict=True)]


def _woken_unless_over(now: datetime) -> Decide:
    decide = woken(now)
    return lambda fields: None if fields.get("expires_at") is None else decide(fields)
