"""What came of the warm-up job: the proof that an endpoint serves, or the words of why it does not. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from moorage_runpod.wire import Job

# What RunPod itself says of a job that no worker has answered.
_BY_PLATFORM = re.compile(r"timed out after|worker .*(?:died|lost)|no workers? ", re.IGNORECASE)

WARM_UP: Mapping[str, object] = {
    "input": {"moorage": "warm_up"},
    # Loading a large model over a slow line takes long; a job that nobody wants any more must not start a
    # worker a day later.
    "policy": {"executionTimeout": 45 * 60_000, "ttl": 60 * 60_000},
}


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a job failed, in words. `rejected`: it will not help to try again."""

    words: str
    rejected: bool


def waiting(job: Job) -> bool:
    return job.status in ("IN_QUEUE", "IN_PROGRESS", "RUNNING")


def lost(job: Job | None) -> bool:
    """Whether nothing can be learnt from it any more, so that another must be sent."""
    return job is None or job.status in ("CANCELLED", "TIMED_OUT")


def answered(job: Job, *, own_image: bool) -> bool:
    """Whether a worker has taken and answered it. The handler of somebody else's image knows nothing of
    warm-ups: its refusal is an answer too."""
    if job.status == "COMPLETED":
        return True
    return job.status == "FAILED" and not own_image and not _BY_PLATFORM.search(job.error or "")


def complaint(job: Job) -> Complaint:
    """Of a FAILED job. Our worker's error is a problem document; RunPod wraps others in one of its own."""
    told = _object(job.error)
    if "error_message" in told:
        told = _object(told["error_message"]) or told
    for name in ("detail", "error_message", "title", "error_type"):
        words = told.get(name)
        if isinstance(words, str) and words.strip():
            break
    else:
        words = job.error or "no reason was given"
    status = told.get("status")
    rejected = isinstance(status, int) and 400 <= status < 500
    return Complaint(" ".join(str(words).split())[:1000], rejected)


def _object(text: object) -> Mapping[str, object]:
    try:
        told = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
