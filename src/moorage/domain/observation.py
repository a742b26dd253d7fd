"""What a provider sees of an endpoint, in words that every provider can fill and every rule can read."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Observation:
    """What the provider sees now. `trouble` is set when waiting will not help; `log_tail` then has the last
    lines of the replica's log, oldest first."""

    replicas: tuple[Replica, ...]
    stage: str | None = None  # what it is doing, in a word: "downloading", "loading", …
    trouble: Trouble | None = None
    message: str | None = None
    log_tail: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """Base URLs of the replicas that answer."""
        return tuple(r.url for r in self.replicas if r.state is ReplicaState.READY and r.url is not None)
