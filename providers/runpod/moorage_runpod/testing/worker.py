"""One worker of an endpoint: what is true of it, whichever way it runs."""

from __future__ import annotations

import asyncio
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass, field

from moorage_runpod.testing.endpoint import EndpointSpec, Json, rfc3339
from moorage_runpod.testing.logs import Log
from moorage_runpod.testing.scheduler import Placement, WorkerView

RUNNING, IDLE, INITIALIZING = "RUNNING", "IDLE", "INITIALIZING"
THROTTLED, UNHEALTHY = "THROTTLED", "UNHEALTHY"
STATUSES = (RUNNING, IDLE, INITIALIZING, THROTTLED, UNHEALTHY)
_ALPHABET = string.ascii_lowercase + string.digits


def new_id(length: int = 14) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


@dataclass(eq=False, slots=True)
class Worker:
    """`spec` and `version` are those it was started with. `serving` counts a load balancer's requests; `port`
    and `health_port` are where it listens for them, once it does."""

    endpoint_id: str
    spec: EndpointSpec
    version: int
    created_at: float
    log: Log
    jobs: Callable[[], int]  # how many it works on
    id: str = field(default_factory=new_id)
    token: str = field(default_factory=lambda: f"rpa_worker_{secrets.token_urlsafe(16)}", repr=False)
    placement: Placement | None = None
    started_at: float | None = None
    up: bool = False
    crashed: bool = False
    idle_since: float | None = None
    serving: int = 0
    port: int | None = None
    health_port: int | None = None
    task: asyncio.Task[None] | None = None
    refresh: bool = False  # it asked to be replaced after its job

    @property
    def busy(self) -> bool:
        return self.serving > 0 or self.jobs() > 0

    def note(self, now: float) -> None:
        """Remembers since when it idles."""
        if not self.up or self.busy:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now

    def went_up(self) -> None:
        self.up, self.crashed = True, False

    def went_down(self) -> None:
        self.up, self.crashed, self.port, self.health_port = False, True, None, None

    def status(self, crash_status: str) -> str:
        if self.placement is None:
            return THROTTLED
        if self.crashed:
            return crash_status
        if not self.up:
            return INITIALIZING
        return RUNNING if self.busy else IDLE

    def view(self, version: int) -> WorkerView:
        return WorkerView(
            self.id, self.version != version, self.placement is not None, self.up, self.idle_since
        )

    def as_json(self, version: int, crash_status: str, now: float) -> Json:
        started = self.started_at
        return {
            "id": self.id,
            "status": self.status(crash_status),
            "isStale": self.version != version,
            "version": self.version,
            "gpuCount": self.spec.gpu_count,
            "image": self.spec.image,
            "uptimeSeconds": None if started is None else max(0, int(now - started)),
            "gpuTypeId": self.placement.gpu_type if self.placement else None,
            "dataCenterId": self.placement.data_center if self.placement else None,
            "startedAt": None if started is None else rfc3339(started),
        }
