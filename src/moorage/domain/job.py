"""Jobs: requests to a deployment that are kept until they are answered, as RunPod's job API has them.

A job outlives the process that took it, and the replica that began it: what was begun and has no end is begun
again. So a model may see a job more than once, and its owner sees one answer. Bytes are not here: input and
output are rows of their own (`JobPayload`), so that looking at a job costs nothing for its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from moorage.domain.retry import Backoff

RUN_BYTES = 10_000_000  # of the whole request
RUNSYNC_BYTES = 20_000_000
OUTPUT_BYTES = 20_000_000
EXECUTION_SECONDS = (5.0, 604_800.0)  # least and most
TTL_SECONDS = (10.0, 604_800.0)
KEPT_SECONDS = 1800.0  # after its end, by the way it was asked for
KEPT_SYNC_SECONDS = 60.0
TIMES_BROKEN = 3  # replicas that may die of one job before it fails
ASLEEP_SECONDS = 900.0  # of a job whose deployment does not serve, unless it is woken before

AGAIN = Backoff(base=0.25, cap=30.0)


class JobState(StrEnum):
    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def final(self) -> bool:
        return self not in (JobState.IN_QUEUE, JobState.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class JobPolicy:
    """`execution_timeout` in seconds of one run; `ttl` in seconds of all, from acceptance to the end."""

    execution_timeout: float = 600.0
    ttl: float = 86_400.0
    low_priority: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """`due_at` is when a runner should take it, None once it is over. `started_at` is of the last run, and
    `error` JSON text of a problem."""

    id: str
    organization_id: str
    deployment_id: str
    created_at: datetime
    sync: bool = False
    policy: JobPolicy = JobPolicy()
    size: int = 0  # bytes of the input
    webhook: str | None = None
    state: JobState = JobState.IN_QUEUE
    started_at: datetime | None = None
    ended_at: datetime | None = None
    retries: int = 0  # runs after one that had no end
    broken: int = 0  # of these, by a replica that broke off
    waits: int = 0  # in a row: no replica took it
    error: str | None = field(default=None, repr=False)
    drained: bool = False  # its output was streamed
    due_at: datetime | None = None
    version: int = 0

    @property
    def expires_at(self) -> datetime | None:
        """When it is timed out, whatever has become of it; None once it is over."""
        return None if self.state.final else self.created_at + timedelta(seconds=self.policy.ttl)

    @property
    def forget_at(self) -> datetime | None:
        if self.ended_at is None:
            return None
        return self.ended_at + timedelta(seconds=KEPT_SYNC_SECONDS if self.sync else KEPT_SECONDS)

    def stored(self) -> Job:
        """As a reader would find it after this value was committed."""
        return replace(self, version=self.version + 1)


@dataclass(frozen=True, slots=True)
class JobPayload:
    """What a job brings, or what came of it: JSON text, never logged."""

    id: str  # input_id(job_id) or output_id(job_id)
    text: str = field(repr=False)
    version: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """The model's answer, JSON text."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The model answered that it will not, or cannot. `error` is JSON text of a problem."""

    error: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NotTaken:
    """No replica took the job: none could be connected, or all are busy. Nothing of it was carried out."""

    after: float | None = None  # seconds that a replica asked for


@dataclass(frozen=True, slots=True)
class NotServing:
    """The deployment has no replica now."""


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """A replica began, and its answer never came."""

    error: str = field(repr=False)  # JSON text of a problem: the last word, when it was the last try


@dataclass(frozen=True, slots=True)
class RanTooLong:
    """Longer than its execution timeout."""


Ending = Output | Refusal | NotTaken | NotServing | BrokenOff | RanTooLong


def job_id(uuid: UUID, *, sync: bool) -> str:
    return f"sync-{uuid}-u1" if sync else f"{uuid}-u1"


def input_id(job_id: str) -> str:
    return f"{job_id}/input"


def output_id(job_id: str) -> str:
    return f"{job_id}/output"


def expired(job: Job, now: datetime) -> bool:
    return job.expires_at is not None and job.expires_at <= now


def seconds_to_run(job: Job, now: datetime) -> float:
    """How long a run that begins now may take."""
    if job.expires_at is None:
        return 0.0
    return min(job.policy.execution_timeout, (job.expires_at - now).total_seconds())


def begun(job: Job, now: datetime) -> Job:
    """It stays due: should its runner die, it is taken again when the lease has run out."""
    again = 1 if job.state is JobState.IN_PROGRESS else 0  # its last runner died
    return replace(job, state=JobState.IN_PROGRESS, started_at=now, retries=job.retries + again)


def let_go(job: Job, now: datetime) -> Job:
    """Its runner stops, perhaps in the middle of it: another may take it at once."""
    again = 1 if job.state is JobState.IN_PROGRESS else 0
    return replace(job, state=JobState.IN_QUEUE, started_at=None, retries=job.retries + again, due_at=now)


def ended(job: Job, ending: Ending, now: datetime, luck: float) -> Job:
    """The job after a run: over, or to be run again. `luck` in [0, 1) spreads what is tried again."""
    match ending:
        case Output():
            return _over(job, JobState.COMPLETED, now)
        case Refusal(error):
            return failed(job, error, now)
        case RanTooLong():
            return timed_out(job, now)
        case BrokenOff(error):
            later = replace(job, broken=job.broken + 1)
            if later.broken >= TIMES_BROKEN:
                return failed(later, error, now)
            return _again(replace(later, retries=job.retries + 1), None, now, luck)
        case NotTaken(after):
            return _again(job, after, now, luck)
        case NotServing():
            wake_at = now + timedelta(seconds=ASLEEP_SECONDS)
            return replace(job, state=JobState.IN_QUEUE, started_at=None, due_at=wake_at)


def failed(job: Job, error: str, now: datetime) -> Job:
    return replace(_over(job, JobState.FAILED, now), error=error)


def cancelled(job: Job, now: datetime) -> Job:
    return _over(job, JobState.CANCELLED, now)


def timed_out(job: Job, now: datetime) -> Job:
    return _over(job, JobState.TIMED_OUT, now)


def as_seen(job: Job, now: datetime) -> Job | None:
    """The job as a reader is to see it, who may be quicker than whoever clears up; None once forgotten."""
    if job.forget_at is not None and job.forget_at <= now:
        return None
    return timed_out(job, now) if expired(job, now) else job


def share_places(room: int, queues: Mapping[str, int]) -> dict[str, int]:
    """`room` places given to queues in turn, one each, until the room or the queues' own places are used.
    Queues are in the order in which it is their turn; those that get nothing are left out."""
    shares = dict.fromkeys(queues, 0)
    waiting = [name for name, places in queues.items() if places > 0]
    while room > 0 and waiting:
        given = waiting[:room]
        for name in given:
            shares[name] += 1
        room -= len(given)
        waiting = [name for name in waiting if shares[name] < queues[name]]
    return {name: share for name, share in shares.items() if share}


def _over(job: Job, state: JobState, now: datetime) -> Job:
    return replace(job, state=state, ended_at=now, due_at=None)


def _again(job: Job, after: float | None, now: datetime, luck: float) -> Job:
    waits = job.waits + 1
    seconds = max(AGAIN.delay(waits, luck), min(after or 0.0, AGAIN.cap))
    due_at = now + timedelta(seconds=seconds)
    return replace(job, state=JobState.IN_QUEUE, started_at=None, waits=waits, due_at=due_at)
