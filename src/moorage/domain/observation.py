"""What a provider sees of an endpoint, in words that every provider can fill and every rule can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ReplicaState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Replica:
    """One running copy. `url` is the base URL requests go to, set when `state` is READY."""

    id: str
    state: ReplicaState
    url: str | None = None
    message: str | None = None


class Trouble(StrEnum):
    """Why an endpoint will not become ready by waiting."""

    NO_CAPACITY = "no_capacity"
    CRASH_LOOP = "crash_loop"
    REJECTED = "rejected"


class Face(StrEnum):
    """What a replica's URL takes."""

    HTTP = "http"  # requests: `/infer` and what else the worker has
    JOBS = "jobs"  # jobs: `/run`, `/runsync`, `/status/{job}`, `/cancel/{job}`, `/health`


@dataclass(frozen=True, slots=True)
class Access:
    """How the replicas of an endpoint are spoken to. `bearer` names the credential value that goes with every
    request as a bearer token; None: none does. `authority` names the value with the PEM of the only authority
    whose certificates are believed, `certificate` and `key` those with the PEM of our own certificate."""

    face: Face = Face.HTTP
    bearer: str | None = None
    authority: str | None = None
    certificate: str | None = None
    key: str | None = None

    @property
    def needs_credentials(self) -> bool:
        return any((self.bearer, self.authority, self.certificate))


class WorkerState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker said of itself last. `endpoint` is the external name that it runs under."""

    endpoint: str
    worker: str
    state: WorkerState
    at: datetime
    stage: str | None = None
    percent: float | None = None
    load_seconds: float | None = None
    from_cache: bool | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What the provider sees now. `trouble` is set when waiting will not help; `log_tail` then has the last
    lines of the replica's log, oldest first.

    `ref` is what the provider wants to find in the handle at its next look, besides what is there; the engine
    stores it. `drift` says what somebody changed behind our back, in words; the engine then applies the plan
    again. `running` is how many replicas are billed now, where that is not simply all of them. `asleep` says
    that its autoscaler has let the last replica go; `updating` that some replicas run an older plan still.
    """

    replicas: tuple[Replica, ...]
    stage: str | None = None  # what it is doing, in a word: "downloading", "loading", …
    trouble: Trouble | None = None
    message: str | None = None
    log_tail: tuple[str, ...] = ()
    access: Access = Access()
    ref: Mapping[str, str] | None = None
    drift: str | None = None
    running: int | None = None
    asleep: bool = False
    updating: bool = False

    @property
    def targets(self) -> tuple[str, ...]:
        """Base URLs of the replicas that answer."""
        return tuple(r.url for r in self.replicas if r.state is ReplicaState.READY and r.url is not None)
