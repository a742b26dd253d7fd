"""Facts: append-only, and said to a user in the same words wherever they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

# The types a webhook tells of (DESIGN §3). Other events are kept, and not sent.
NOTIFIED = frozenset(
    {
        "deployment.validating",
        "deployment.selecting_gpu",
        "deployment.creating_endpoint",
        "deployment.loading_model",
        "deployment.ready",
        "deployment.failed",
        "deployment.updated",
        "deployment.hibernated",
        "deployment.deleted",
        "deployment.capacity_fallback",
        "model.optimized",
        "usage.limit_reached",
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """`id` orders the events of one subject; `actor` is a principal's id, or `engine`."""

    id: str
    organization_id: str
    subject_id: str  # the deployment, key, … it is about
    type: str
    at: datetime
    actor: str
    message: str
    data: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
