"""Jobs in the words of RunPod's job API, so that its clients understand them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from moorage.domain.delivery import Delivery
from moorage.domain.deployment import ReplicaCounts
from moorage.domain.job import Job, JobState
from moorage.domain.notice import NewId
from moorage.domain.view import instant

WEBHOOK_OUTPUT_CHARACTERS = 256 * 1024  # a longer output is read under `status_url`


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Of one deployment's jobs that are kept. `retried` counts runs, not jobs."""

    by_state: Mapping[JobState, int]
    retried: int = 0


def ticket(job: Job) -> str:
    """What is known of a job that is not over: JSON text."""
    return _json({"id": job.id, "status": job.state.value})


def job_document(job: Job, output: str | None) -> str:
    """JSON text. `output` is JSON text itself, and goes in as it is."""
    return _with_output(_members(job), output)


def stream_document(job: Job, output: str | None) -> str:
    """The whole output is the one chunk that a stream has; None: it has none now."""
    chunks = "[]" if output is None else f'[{{"output":{output}}}]'
    return f'{{"status":"{job.state.value}","stream":{chunks}}}'


def health_document(counts: JobCounts, replicas: ReplicaCounts) -> str:
    jobs = counts.by_state
    running = jobs.get(JobState.IN_PROGRESS, 0)
    busy = min(running, replicas.ready)
    document = {
        "jobs": {
            "completed": jobs.get(JobState.COMPLETED, 0),
            "failed": jobs.get(JobState.FAILED, 0) + jobs.get(JobState.TIMED_OUT, 0),
            "inProgress": running,
            "inQueue": jobs.get(JobState.IN_QUEUE, 0),
            "retried": counts.retried,
        },
        "workers": {
            "idle": replicas.ready - busy,
            "initializing": max(0, replicas.desired - replicas.ready),
            "ready": replicas.ready,
            "running": busy,
            "throttled": 0,
            "unhealthy": 0,
        },
    }
    return _json(document)


def job_delivery(
    job: Job, output: str | None, now: datetime, new_id: NewId, public_url: str
) -> Delivery | None:
    """The message to the job's own webhook, due at once; None when it has none, or is not over."""
    if job.webhook is None or not job.state.final:
        return None
    type_ = f"job.{job.state.value.lower()}"
    data = {
        **_members(job),
        "deployment_id": job.deployment_id,
        "status_url": f"{public_url}/v2/{job.deployment_id}/status/{job.id}",
    }
    sent = output if output is not None and len(output) <= WEBHOOK_OUTPUT_CHARACTERS else None
    head = _json({"type": type_, "timestamp": instant(now)})
    return Delivery(
        id=new_id("msg"),
        organization_id=job.organization_id,
        subject_id=job.deployment_id,
        event_type=type_,
        url=job.webhook,
        payload=f'{head[:-1]},"data":{_with_output(data, sent)}}}',
        created_at=now,
        due_at=now,
    )


def _members(job: Job) -> dict[str, object]:
    members: dict[str, object] = {"id": job.id, "status": job.state.value}
    if job.started_at is not None:
        members["delayTime"] = _milliseconds(job.started_at - job.created_at)
        if job.ended_at is not None:
            members["executionTime"] = _milliseconds(job.ended_at - job.started_at)
    if job.retries:
        members["retries"] = job.retries
    if job.error is not None:
        members["error"] = job.error
    return members


def _with_output(members: Mapping[str, object], output: str | None) -> str:
    text = _json(members)
    return text if output is None else f'{text[:-1]},"output":{output}}}'


def _milliseconds(span: timedelta) -> int:
    return max(0, round(span.total_seconds() * 1000))


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
