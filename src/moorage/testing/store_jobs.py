"""The queues of jobs of the store in memory: a part of it, apart for its length alone."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from moorage.domain.job import Job, JobPayload, JobState, input_id, output_id
from moorage.domain.job_view import JobCounts
from moorage.ports.store import Backlog, Lease

if TYPE_CHECKING:
    from moorage.testing.store import Cell, Key, Memory


class JobQueues(ABC):
    """What `MemoryStore` does for jobs."""

    _memory: Memory

    async def job(self, job_id: str, organization_id: str) -> Job | None:
        await asyncio.sleep(0)
        found = self._memory.cells.get(("job", job_id))
        if found is None:
            return None
        job = _job(found)
        return job if job.organization_id == organization_id else None

    async def job_payload(self, payload_id: str) -> JobPayload | None:
        await asyncio.sleep(0)
        found = self._memory.cells.get(("job_payload", payload_id))
        if found is None:
            return None
        assert isinstance(found.row, JobPayload)
        return found.row

    async def job_counts(self, deployment_id: str) -> JobCounts:
        await asyncio.sleep(0)
        jobs = [job for _, _, job in self._jobs() if job.deployment_id == deployment_id]
        return JobCounts(Counter(job.state for job in jobs), sum(job.retries for job in jobs))

    async def job_backlog(self, deployment_id: str) -> Backlog:
        await asyncio.sleep(0)
        jobs = [job for _, _, job in self._jobs() if _in_queue(job, deployment_id)]
        return Backlog(len(jobs), sum(job.size for job in jobs))

    async def queued_jobs(self, deployment_id: str, limit: int) -> Sequence[Job]:
        await asyncio.sleep(0)
        jobs = [job for _, _, job in self._jobs() if _in_queue(job, deployment_id)]
        return sorted(jobs, key=lambda job: (job.created_at, job.id))[:limit]

    async def job_queues(self, now: datetime) -> Sequence[str]:
        await asyncio.sleep(0)
        return list({job.deployment_id for _, cell, job in self._jobs() if cell.claimable(now)})

    async def claim_jobs(self, wanted: Mapping[str, int], lease: Lease, now: datetime) -> Sequence[Job]:
        await asyncio.sleep(0)
        claimed: list[Job] = []
        for deployment_id, limit in wanted.items():
            due = [
                (job.policy.low_priority, job.created_at, key)
                for key, cell, job in self._jobs()
                if job.deployment_id == deployment_id and cell.claimable(now)
            ]
            for _, _, key in sorted(due)[:limit]:
                self._memory.cells[key] = cell = replace(self._memory.cells[key], lease=lease, woken_at=None)
                claimed.append(_job(cell))
        if wanted:
            self._tell_others()
        return claimed

    async def jobs_held(self, held: Mapping[str, str]) -> frozenset[str]:
        await asyncio.sleep(0)
        cells = {id_: self._memory.cells.get(("job", id_)) for id_ in held}
        return frozenset(
            id_
            for id_, cell in cells.items()
            if cell is not None and cell.lease is not None and cell.lease.token == held[id_]
        )

    async def wake_jobs(self, deployment_ids: Sequence[str], now: datetime) -> None:
        await asyncio.sleep(0)
        for key, cell, job in list(self._jobs()):
            if job.deployment_id in deployment_ids and not job.state.final:
                due_at = now if cell.due_at is None else min(cell.due_at, now)
                self._memory.cells[key] = replace(cell, due_at=due_at, woken_at=now)
        self._tell_others()

    async def next_job(self, after: datetime) -> datetime | None:
        await asyncio.sleep(0)
        moments: list[datetime | None] = []
        for _, cell, job in self._jobs():
            moments += [cell.due_at, job.expires_at, cell.lease.until if cell.lease else None]
        return min((moment for moment in moments if moment is not None and moment > after), default=None)

    async def expired_jobs(self, now: datetime, limit: int) -> Sequence[Job]:
        await asyncio.sleep(0)
        found = [
            (job.expires_at, job.id, job)
            for _, _, job in self._jobs()
            if job.expires_at is not None and job.expires_at <= now
        ]
        return [job for _, _, job in sorted(found, key=lambda entry: entry[:2])[:limit]]

    async def forget_jobs(self, now: datetime, limit: int) -> int:
        await asyncio.sleep(0)
        found = [
            (job.forget_at, job.id)
            for _, _, job in self._jobs()
            if job.forget_at is not None and job.forget_at <= now
        ]
        gone = [id_ for _, id_ in sorted(found)[:limit]]
        for id_ in gone:
            del self._memory.cells["job", id_]
            for payload in (input_id(id_), output_id(id_)):
                self._memory.cells.pop(("job_payload", payload), None)
        self._tell_others()
        return len(gone)

    @abstractmethod
    def _tell_others(self) -> None:
        """Wake whoever follows the changes of other processes."""

    def _jobs(self) -> Iterator[tuple[Key, Cell, Job]]:
        for key, cell in self._memory.cells.items():
            if key[0] == "job":
                yield key, cell, _job(cell)


def _job(cell: Cell) -> Job:
    assert isinstance(cell.row, Job)
    return replace(cell.row, due_at=cell.due_at)


def _in_queue(job: Job, deployment_id: str) -> bool:
    return job.deployment_id == deployment_id and job.state is JobState.IN_QUEUE
