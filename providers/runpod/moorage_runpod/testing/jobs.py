"""The queue of one endpoint: jobs from their submission to their end. Pure; time is passed in.

Whoever holds a queue is told of each change by `on_change`, to wake what waits for it.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Any  # JSON of callers and workers

IN_QUEUE, IN_PROGRESS = "IN_QUEUE", "IN_PROGRESS"
COMPLETED, FAILED, CANCELLED, TIMED_OUT = "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"
ENDED = frozenset({COMPLETED, FAILED, CANCELLED, TIMED_OUT})
EXECUTION_TIMEOUT, TTL = 600.0, 86400.0
KEPT, KEPT_SYNC = 1800.0, 60.0
ATTEMPTS = 2  # how often a job is given out whose worker dies


@dataclass(slots=True)
class Job:
    """Times in seconds. `taken_at` is that of the last worker that took it."""

    id: str
    submitted_at: float
    ttl: float
    execution_timeout: float
    kept: float
    body: Mapping[str, Json] = field(repr=False)
    status: str = IN_QUEUE
    queued_at: float = 0.0
    taken_at: float | None = None
    ended_at: float | None = None
    worker_id: str | None = None
    attempts: int = 0
    output: Json = None
    has_output: bool = False
    error: Json = None
    chunks: list[Json] = field(default_factory=list, repr=False)

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def as_json(self) -> dict[str, Json]:
        told: dict[str, Json] = {"id": self.id, "status": self.status}
        if self.taken_at is not None:
            told["delayTime"] = round((self.taken_at - self.queued_at) * 1000)
            told["workerId"] = self.worker_id
            if self.ended_at is not None:
                told["executionTime"] = round((self.ended_at - self.taken_at) * 1000)
        if self.has_output:
            told["output"] = self.output
        if self.error is not None:
            told["error"] = self.error
        return told

    def for_worker(self) -> dict[str, Json]:
        told = {"id": self.id, "input": self.body.get("input")}
        if "webhook" in self.body:
            told["webhook"] = self.body["webhook"]
        return told


class JobQueue:
    """`timeout` gives the endpoint's execution timeout in seconds, 0 for RunPod's default."""

    def __init__(self, timeout: Callable[[], float], on_change: Callable[[], None]) -> None:
        self._timeout = timeout
        self._on_change = on_change
        self._jobs: dict[str, Job] = {}
        self._stops: dict[str, list[str]] = {}  # worker: jobs that it must stop
        self._counts: Counter[str] = Counter()

    # -- for callers --------------------------------------------------------------------------------

    def submit(self, body: Mapping[str, Json], now: float, *, sync: bool = False) -> Job:
        """`body` was checked by `checked_body`."""
        policy = body.get("policy") or {}
        job = Job(
            id=f"{'sync-' if sync else ''}{uuid.uuid4()}-u1",
            submitted_at=now,
            queued_at=now,
            ttl=policy.get("ttl", TTL * 1000) / 1000,
            execution_timeout=policy.get("executionTimeout", 0) / 1000
            or self._timeout()
            or EXECUTION_TIMEOUT,
            kept=KEPT_SYNC if sync else KEPT,
            body=body,
        )
        self._jobs[job.id] = job
        self._on_change()
        return job

    def find(self, job_id: str, now: float) -> Job | None:
        self.expire(now)
        return self._jobs.get(job_id)

    def cancel(self, job: Job, now: float) -> None:
        if not job.ended:
            self._end(job, CANCELLED, now)

    def retry(self, job: Job, now: float) -> bool:
        """False where the job neither failed nor timed out."""
        if job.status not in (FAILED, TIMED_OUT):
            return False
        job.attempts, job.error, job.has_output, job.ended_at = 0, None, False, None
        job.submitted_at = now
        self._queue_again(job, now)
        return True

    def purge(self, now: float) -> int:
        """Cancels what is queued; gives how many."""
        queued = self.queued
        for job in queued:
            self._end(job, CANCELLED, now)
        return len(queued)

    def drain(self, job: Job) -> list[Json]:
        chunks, job.chunks = job.chunks, []
        return chunks

    # -- for workers --------------------------------------------------------------------------------

    def take(self, worker_id: str, now: float) -> Job | None:
        self.expire(now)
        job = next(iter(self.queued), None)
        if job is None:
            return None
        job.status, job.worker_id, job.taken_at = IN_PROGRESS, worker_id, now
        job.attempts += 1
        self._on_change()
        return job

    def report(self, worker_id: str, job_id: str, told: Mapping[str, Json], now: float) -> None:
        """A result, an error, or an output in between; from a worker that lost the job it is dropped."""
        job = self._held(worker_id, job_id)
        if job is None:
            return
        if "error" in told:
            job.error = told["error"]
            self._end(job, FAILED, now)
            return
        job.output, job.has_output = told.get("output"), True
        if told.get("status") == IN_PROGRESS:
            self._on_change()
        else:
            self._end(job, COMPLETED, now)

    def stream(self, worker_id: str, job_id: str, chunk: Json) -> None:
        job = self._held(worker_id, job_id)
        if job is not None:
            job.chunks.append(chunk)
            self._on_change()

    def stops(self, worker_id: str) -> list[str]:
        """Jobs that this worker must stop and was not told of."""
        return self._stops.pop(worker_id, [])

    def worker_lost(self, worker_id: str, now: float) -> None:
        """Its jobs go to another worker, once."""
        self._stops.pop(worker_id, None)
        for job in self.held_by(worker_id):
            if job.attempts < ATTEMPTS:
                self._counts["retried"] += 1
                self._queue_again(job, now)
            else:
                job.error = f"job timed out after {job.attempts - 1} retries"
                self._end(job, FAILED, now)

    # -- time ---------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Ends what ran too long, forgets what is kept no longer."""
        for job in list(self._jobs.values()):
            if job.status == IN_PROGRESS and job.taken_at is not None:
                if now >= job.taken_at + job.execution_timeout:
                    job.error = "job exceeded its execution timeout"
                    self._end(job, TIMED_OUT, now)
            elif now >= _forgotten_at(job):
                del self._jobs[job.id]
                self._on_change()

    def next_due(self) -> float | None:
        """When `expire` has something to do."""
        times = [
            job.taken_at + job.execution_timeout
            if job.status == IN_PROGRESS and job.taken_at is not None
            else _forgotten_at(job)
            for job in self._jobs.values()
        ]
        return min(times, default=None)

    # -- what there is ------------------------------------------------------------------------------

    @property
    def queued(self) -> list[Job]:
        return [j for j in self._jobs.values() if j.status == IN_QUEUE]

    def held_by(self, worker_id: str) -> list[Job]:
        return [j for j in self._jobs.values() if j.status == IN_PROGRESS and j.worker_id == worker_id]

    def close(self, now: float) -> None:
        for job in self._jobs.values():
            self.cancel(job, now)

    def counts(self) -> dict[str, int]:
        return {
            "completed": self._counts[COMPLETED],
            "failed": self._counts[FAILED] + self._counts[TIMED_OUT],
            "inProgress": sum(j.status == IN_PROGRESS for j in self._jobs.values()),
            "inQueue": len(self.queued),
            "retried": self._counts["retried"],
        }

    def _held(self, worker_id: str, job_id: str) -> Job | None:
        job = self._jobs.get(job_id)
        return job if job and job.status == IN_PROGRESS and job.worker_id == worker_id else None

    def _queue_again(self, job: Job, now: float) -> None:
        job.status, job.worker_id, job.taken_at, job.queued_at = IN_QUEUE, None, None, now
        self._on_change()

    def _end(self, job: Job, status: str, now: float) -> None:
        if job.status == IN_PROGRESS and status in (CANCELLED, TIMED_OUT) and job.worker_id is not None:
            self._stops.setdefault(job.worker_id, []).append(job.id)
        job.status, job.ended_at = status, now
        self._counts[status] += 1
        self._on_change()


def _forgotten_at(job: Job) -> float:
    return job.submitted_at + job.ttl if job.ended_at is None else job.ended_at + job.kept


def checked_body(body: Json, size: int, *, most: int) -> str | None:
    """Why a submission is refused. `size` and `most` in bytes."""
    if size > most:
        return f"payload of {size} bytes exceeds the limit of {most} bytes"
    if not isinstance(body, dict):
        return "the body must be a JSON object"
    policy = body.get("policy") or {}
    bounds = {"executionTimeout": (5_000, 604_800_000), "ttl": (10_000, 604_800_000)}
    for name, (low, high) in bounds.items():
        value = policy.get(name, low)
        if not isinstance(value, int) or not low <= value <= high:
            return f"policy.{name} must be from {low} to {high} milliseconds"
    return None
