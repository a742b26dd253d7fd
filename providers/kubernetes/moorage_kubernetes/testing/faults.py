"""How the cluster can be told to misbehave. Plain state, no effects.

Every attribute may be set at any time; sets of patterns are replaced, not changed in place, so that a change
is noticed. A pattern of pods is held against the pod's name, its namespace/name, its images, and its label
app.kubernetes.io/name; `*` is all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from fnmatch import fnmatchcase

from moorage_kubernetes.testing.statuses import Json

CRASH_LINES = (
    "Traceback (most recent call last):",
    '  File "/app/server.py", line 3, in <module>',
    "    import weights",
    "ModuleNotFoundError: No module named 'weights'",
)


class Kind(StrEnum):
    SLOW = "slow"  # answers after `seconds`
    TOO_MANY = "too_many"  # 429, Retry-After: `seconds`; nothing is done
    INTERNAL = "internal"  # 500; nothing is done
    UNAVAILABLE = "unavailable"  # 503; nothing is done
    GATEWAY_TIMEOUT = "gateway_timeout"  # 504, a page of the network in front; nothing is done
    LOSE_REQUEST = "lose_request"  # the connection is cut before anything is done
    LOSE_ANSWER = "lose_answer"  # the connection is cut after it was done


@dataclass(slots=True)
class RequestFault:
    """`route` is a pattern over method and path: `PATCH */deployments/*`, `*`.

    It holds for the next `times` requests, for all of them where that is None."""

    route: str
    kind: Kind
    times: int | None = 1
    seconds: float = 1.0


@dataclass
class Faults:
    """What holds now. The comment at each says what a client sees."""

    unschedulable: frozenset[str] = frozenset()  # FailedScheduling, PodScheduled=False Unschedulable
    never_scheduled: frozenset[str] = frozenset()  # Pending without a word
    image_pull: frozenset[str] = frozenset()  # ErrImagePull, then ImagePullBackOff
    config_error: frozenset[str] = frozenset()  # CreateContainerConfigError
    oom_killed: frozenset[str] = frozenset()  # OOMKilled 137, then CrashLoopBackOff
    crash_loop: frozenset[str] = frozenset()  # exit 1 with `crash_lines`, then CrashLoopBackOff
    startup_probe: frozenset[str] = frozenset()  # Unhealthy, never started
    readiness_probe: frozenset[str] = frozenset()  # Unhealthy, never ready
    failed_mount: frozenset[str] = frozenset()  # FailedMount, ContainerCreating
    failed_attach: frozenset[str] = frozenset()  # FailedAttachVolume, ContainerCreating
    provisioning: frozenset[str] = frozenset()  # of claims: ProvisioningFailed, Pending
    quota: frozenset[str] = frozenset()  # no pod may be made: ReplicaFailure FailedCreate
    progress_deadline: frozenset[str] = frozenset()  # of deployments: ProgressDeadlineExceeded at once
    admission_forbidden: frozenset[str] = frozenset()  # of any `plural/name`: 403
    admission_invalid: frozenset[str] = frozenset()  # of any `plural/name`: 422
    no_kubelet: bool = False  # scheduled pods stay Pending
    crash_lines: tuple[str, ...] = CRASH_LINES
    crash_exit_code: int = 1
    admission_message: str = 'admission webhook "policy.example.com" denied the request: not allowed here'
    requests: tuple[RequestFault, ...] = ()
    on_change: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, str) and name != "admission_message":
            raise TypeError(f"faults.{name} is a set of patterns")
        wanted = frozenset(value) if isinstance(value, (set, list)) else value
        object.__setattr__(self, name, wanted)
        told = self.__dict__.get("on_change")
        if told is not None:
            told()

    def arm(
        self, route: str, kind: Kind | str, *, times: int | None = 1, seconds: float = 1.0
    ) -> RequestFault:
        """The next `times` requests of `route` meet it."""
        fault = RequestFault(route, Kind(kind), times, seconds)
        self.requests = (*self.requests, fault)
        return fault

    def lose_answers(self, route: str = "*", times: int | None = 1) -> RequestFault:
        """The next `times` requests of `route` are done, and never answered."""
        return self.arm(route, Kind.LOSE_ANSWER, times=times)

    def met(self, route: str) -> tuple[RequestFault, ...]:
        """What a request of `route` meets, used up by it: slowness, and one of the other kinds."""
        armed = [f for f in self.requests if f.times != 0 and fnmatchcase(route, f.route)]
        slow = next((f for f in armed if f.kind is Kind.SLOW), None)
        other = next((f for f in armed if f.kind is not Kind.SLOW), None)
        found = tuple(f for f in (slow, other) if f is not None)
        for fault in found:
            if fault.times is not None:
                fault.times -= 1
        return found

    def clear(self) -> None:
        for known in fields(self):
            if known.name != "on_change":
                setattr(self, known.name, known.default)


def named(patterns: Iterable[str], *names: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def hits(patterns: frozenset[str], pod: Json) -> bool:
    """Whether a pod is meant."""
    if not patterns:
        return False
    metadata = pod["metadata"]
    label = (metadata.get("labels") or {}).get("app.kubernetes.io/name", metadata["name"])
    images = [container.get("image", "") for container in pod["spec"]["containers"]]
    return named(patterns, metadata["name"], f"{metadata['namespace']}/{metadata['name']}", label, *images)
