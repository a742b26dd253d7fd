"""What is known of one job, and how it is told: in the words of RunPod's job API, which its clients know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import orjson


class Status(StrEnum):
    """Where a job is. A final one never changes."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def final(self) -> bool:
        return self not in (Status.IN_QUEUE, Status.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: `output` is JSON, `error` the JSON text of a problem; one of them."""

    status: Status
    output: bytes | None = None
    error: bytes | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """As Redis keeps it. Times are in milliseconds since the epoch, of Redis' own clock."""

    status: Status
    queued_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    worker: str | None = None
    output: bytes | None = None
    error: bytes | None = None
    progress: bytes | None = None

    @classmethod
    def read(cls, fields: Mapping[bytes, bytes]) -> Self:
        def text(name: bytes) -> str | None:
            return fields[name].decode() if name in fields else None

        def number(name: bytes) -> int | None:
            return int(fields[name]) if name in fields else None

        return cls(
            status=Status(fields[b"status"].decode()),
            queued_at=number(b"queued_at"),
            started_at=number(b"started_at"),
            finished_at=number(b"finished_at"),
            worker=text(b"worker"),
            output=fields.get(b"output"),
            error=fields.get(b"error"),
            progress=fields.get(b"progress"),
        )


def job_document(job_id: str, record: JobRecord) -> bytes:
    """The answer of `GET /status/{job}`: JSON. How far a running job is stands where its output will."""
    members: dict[str, object] = {"id": job_id, "status": record.status.value}
    if record.started_at is not None and record.queued_at is not None:
        members["delayTime"] = max(0, record.started_at - record.queued_at)
    if record.started_at is not None and record.finished_at is not None:
        members["executionTime"] = max(0, record.finished_at - record.started_at)
    if record.worker is not None:
        members["workerId"] = record.worker
    output = record.output if record.status.final else record.progress
    if output is not None:
        members["output"] = orjson.Fragment(output)
    if record.error is not None:
        members["error"] = record.error.decode()
    return orjson.dumps(members)


WORKER_SECONDS = 15  # without a word from it, a worker is gone


@dataclass(frozen=True, slots=True)
class WorkerWord:
    """What a worker last said of itself; `at` in milliseconds of Redis' clock."""

    at: int
    ready: bool
    in_hand: int

    def written(self) -> str:
        return f"{self.at} {int(self.ready)} {self.in_hand}"

    @classmethod
    def read(cls, text: bytes) -> Self:
        at, ready, in_hand = (int(part) for part in text.split())
        return cls(at, bool(ready), in_hand)


def health_document(
    totals: Mapping[str, int], words: Mapping[str, WorkerWord], now: int, in_queue: int
) -> dict[str, dict[str, int]]:
    """`{"jobs", "workers"}` as the job API counts them. `totals` are since the queue was first used."""
    alive = [word for word in words.values() if now - word.at <= WORKER_SECONDS * 1000]
    running = sum(word.ready and word.in_hand > 0 for word in alive)
    ready = sum(word.ready for word in alive)
    return {
        "jobs": {
            "completed": totals.get("COMPLETED", 0),
            "failed": totals.get("FAILED", 0) + totals.get("TIMED_OUT", 0),
            "inProgress": sum(word.in_hand for word in alive),
            "inQueue": in_queue,
            "retried": totals.get("retried", 0),
        },
        "workers": {
            "idle": ready - running,
            "initializing": len(alive) - ready,
            "ready": ready,
            "running": running,
            "throttled": 0,
            "unhealthy": 0,
        },
    }
