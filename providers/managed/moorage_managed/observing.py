"""From what is on disk to what the core reads. Pure."""

from __future__ import annotations

from moorage.domain.observation import Observation, Replica, ReplicaState, Trouble
from moorage_managed.endpoints import Sight
from moorage_managed.snapshot import ReplicaSnapshot
from moorage_managed.spec import EndpointSpec

SHIM_DIED = "the supervisor had died and was started again"


def observation(sight: Sight) -> Observation:
    """`sight` as an observation. A dead supervisor's replicas are dead too, whatever its file says."""
    if sight.deleting:
        return Observation(_all(sight.spec, ReplicaState.STOPPED), stage="deleting")
    if sight.snapshot is None:
        return Observation(_all(sight.spec, ReplicaState.STARTING), stage="starting")
    if sight.shim is None:
        return Observation(
            _all(sight.spec, ReplicaState.STOPPED, SHIM_DIED), stage="starting", message=SHIM_DIED
        )
    told = sight.snapshot
    if told.worker not in (None, sight.spec.worker):  # it has not taken up the new spec yet
        return Observation(_all(sight.spec, ReplicaState.STARTING), stage="starting")
    if not told.replicas and sight.spec.replicas:
        return Observation(_all(sight.spec, ReplicaState.STARTING), stage="starting")
    starting = any(r.state == ReplicaState.STARTING for r in told.replicas)
    return Observation(
        tuple(_replica(r, sight.spec) for r in told.replicas),
        stage=told.stage or ("starting" if starting else None),
        trouble=Trouble(told.trouble) if told.trouble is not None else None,
        message=told.message,
        log_tail=told.log_tail,
    )


def hopeless(spec: EndpointSpec, deaths: int, log_tail: tuple[str, ...]) -> Observation:
    """For an endpoint whose supervisor itself dies again and again."""
    message = f"the supervisor ended {deaths} times within a short while; it is not started again for now"
    stopped = _all(spec, ReplicaState.STOPPED, message)
    return Observation(stopped, None, Trouble.CRASH_LOOP, message, log_tail)


def _replica(told: ReplicaSnapshot, spec: EndpointSpec) -> Replica:
    state = ReplicaState(told.state)
    ready = state is ReplicaState.READY and told.port is not None
    return Replica(told.id, state, spec.url(told.port) if ready and told.port else None, told.message)


def _all(spec: EndpointSpec, state: ReplicaState, message: str | None = None) -> tuple[Replica, ...]:
    return tuple(Replica(str(index), state, None, message) for index in range(spec.replicas))
