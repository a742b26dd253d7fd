"""From what RunPod shows of an endpoint to what the core reads of it. Pure: time is passed in.

`ready` is never said on RunPod's word. A worker that is "running" may be pulling an image or dying; only an
answer of its own, to a job or to the load balancer's ping, proves that the endpoint serves. From then on the
endpoint counts as serving even with no worker at all, because a request starts one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moorage.domain.observation import Access, Face, Observation, Replica, ReplicaState, Trouble
from moorage_runpod.answers import answered, complaint, waiting
from moorage_runpod.bodies import drift
from moorage_runpod.crashes import crash_in
from moorage_runpod.wire import Endpoint, Health, Job, Worker

PROVED: Mapping[str, str] = {"proved": "1"}
BEARER = "api_key"
SERVING = ("RUNNING", "IDLE")
LOG_LINES = 20  # told with a trouble


@dataclass(frozen=True, slots=True)
class Sight:
    """All that was read in one look. `waited` is how long, in seconds and by RunPod's clock, workers have had
    to appear. What was not asked is None; `log` is of the worker that most likely crashes."""

    endpoint: Endpoint
    url: str
    own_image: bool
    proved: bool
    waited: float = 0.0
    workers: tuple[Worker, ...] | None = None
    health: Health | None = None
    warm_up: Job | None = None
    ping: int | None = None
    log: tuple[str, ...] = field(default=(), repr=False)
    ref: Mapping[str, str] = field(default_factory=dict)  # to be found again while it is not proved


def proof(sight: Sight) -> bool:
    """Whether a worker of this endpoint has answered, now or ever."""
    if sight.proved:
        return True
    if sight.endpoint.balanced:
        return sight.ping == 200
    if sight.warm_up is not None and answered(sight.warm_up, own_image=sight.own_image):
        return True
    # A failed job of the counts alone proves nothing: it may be one that no worker could answer.
    return sight.health is not None and sight.health.jobs.completed > 0


def judge(sight: Sight, patience: float) -> Observation:
    """`patience` is how long, in seconds, a pool may leave an endpoint without a worker that it needs."""
    if sight.proved:
        return _serving(sight)
    if proof(sight):
        return _short_of_workers(sight, patience) or _serving(sight)
    return _failed(sight) or _crashing(sight) or _without_capacity(sight, patience) or _waiting(sight)


def billed(workers: Sequence[Worker], least: int) -> int:
    """Workers that cost money: those that work, and of the idle ones the active workers, which are kept for
    money whether they work or not."""
    states = _states(workers)
    running = states["RUNNING"]
    return running + min(states["IDLE"], max(0, least - running))


def suspects(workers: Sequence[Worker]) -> list[Worker]:
    """Whose log to read: those that have run, unhealthy ones first, then who has tried longest."""
    tried = [w for w in workers if w.started_at is not None or w.status == "UNHEALTHY"]
    return sorted(
        tried, key=lambda w: (w.status != "UNHEALTHY", w.started_at.timestamp() if w.started_at else 0.0)
    )


# -- the verdicts, in their order ---------------------------------------------------------------------------


def _serving(sight: Sight) -> Observation:
    endpoint = sight.endpoint
    if endpoint.workers.min == 0:
        replicas: tuple[Replica, ...] = (Replica(endpoint.id, ReplicaState.READY, sight.url),)
    else:
        replicas = tuple(_replica(w, sight.url) for w in sorted(sight.workers or (), key=lambda w: w.id))
    complete = sight.proved or sum(r.state is ReplicaState.READY for r in replicas) >= endpoint.workers.min
    return Observation(
        replicas,
        access=_access(endpoint),
        ref=PROVED if complete else sight.ref,
        drift=drift(endpoint),
        running=_running(sight),
    )


def _short_of_workers(sight: Sight, patience: float) -> Observation | None:
    """It answers, but the pool has never had all the workers that are to be kept. Once it had, the lack of
    one is no reason to leave."""
    least, workers = sight.endpoint.workers.min, sight.workers or ()
    there = sum(w.status in SERVING or (w.status == "INITIALIZING" and w.placed) for w in workers)
    if there >= least or sight.waited < patience:
        return None
    message = (
        f"{_pools(sight)} has given {there} of {least} workers in {sight.waited:.0f} s: {_counts(sight)}"
    )
    return _trouble(sight, Trouble.NO_CAPACITY, message)


def _failed(sight: Sight) -> Observation | None:
    job = sight.warm_up
    if job is None or job.status != "FAILED":
        return None
    why = complaint(job)
    trouble = Trouble.REJECTED if why.rejected else Trouble.CRASH_LOOP
    return _trouble(sight, trouble, f"the worker could not get ready: {why.words}")


def _crashing(sight: Sight) -> Observation | None:
    crash = crash_in(sight.log)
    if crash is not None:
        return _trouble(sight, Trouble.REJECTED if crash.refused else Trouble.CRASH_LOOP, crash.message)
    states = _states(sight.workers or ())
    if states["UNHEALTHY"] and not any(states[s] for s in (*SERVING, "INITIALIZING")):
        return _trouble(sight, Trouble.CRASH_LOOP, f"RunPod calls the workers unhealthy: {_counts(sight)}")
    return None


def _without_capacity(sight: Sight, patience: float) -> Observation | None:
    if sight.waited < patience or _under_way(sight):
        return None
    message = f"{_pools(sight)} has given no worker for {sight.waited:.0f} s: {_counts(sight)}"
    return _trouble(sight, Trouble.NO_CAPACITY, message)


def _waiting(sight: Sight) -> Observation:
    return Observation(
        _starting(sight),
        stage=_stage(sight),
        message=_counts(sight),
        access=_access(sight.endpoint),
        ref=sight.ref or None,
        drift=drift(sight.endpoint),
        running=_running(sight),
    )


# -- parts ---------------------------------------------------------------------------------------------------


def _trouble(sight: Sight, trouble: Trouble, message: str) -> Observation:
    return Observation(
        _starting(sight),
        trouble=trouble,
        message=message,
        log_tail=sight.log[-LOG_LINES:] if trouble is not Trouble.NO_CAPACITY else (),
        access=_access(sight.endpoint),
        ref=sight.ref or None,
        running=_running(sight),
    )


def _under_way(sight: Sight) -> bool:
    """Whether a worker has a machine, or has taken a job."""
    if sight.warm_up is not None and waiting(sight.warm_up) and sight.warm_up.status != "IN_QUEUE":
        return True
    if sight.health is not None and sight.health.jobs.in_progress > 0:
        return True
    workers = sight.workers or ()
    return any(w.status in SERVING or (w.status == "INITIALIZING" and w.placed) for w in workers)


def _stage(sight: Sight) -> str:
    states = _states(sight.workers or ())
    job = sight.warm_up
    if any(states[s] for s in SERVING) or (job is not None and waiting(job) and job.status != "IN_QUEUE"):
        return "loading"
    if states["INITIALIZING"] or states["UNHEALTHY"]:
        return "starting"
    return "throttled" if states["THROTTLED"] else "queued"


def _starting(sight: Sight) -> tuple[Replica, ...]:
    """Before the proof nothing is ready, whatever a worker is called."""
    workers = sight.workers or ()
    if sight.endpoint.workers.min == 0 or not workers:
        return (Replica(sight.endpoint.id, ReplicaState.STARTING),)
    return tuple(
        Replica(w.id, ReplicaState.STARTING, message=w.status.lower())
        for w in sorted(workers, key=lambda w: w.id)
    )


def _replica(worker: Worker, url: str) -> Replica:
    if worker.status in SERVING:
        return Replica(worker.id, ReplicaState.READY, url)
    state = ReplicaState.RESTARTING if worker.status == "UNHEALTHY" else ReplicaState.STARTING
    return Replica(worker.id, state, message=worker.status.lower())


def _access(endpoint: Endpoint) -> Access:
    return Access(Face.HTTP if endpoint.balanced else Face.JOBS, BEARER)


def _pools(sight: Sight) -> str:
    return "/".join(sight.endpoint.gpu.pools) if sight.endpoint.gpu is not None else "RunPod"


def _running(sight: Sight) -> int | None:
    if sight.workers is not None:
        return billed(sight.workers, sight.endpoint.workers.min)
    return sight.health.workers.running if sight.health is not None else None


def _states(workers: Sequence[Worker]) -> Counter[str]:
    return Counter(worker.status for worker in workers)


def _counts(sight: Sight) -> str:
    """`1 throttled, 1 job waiting`: what is there, in words."""
    states = _states(sight.workers or ())
    told = [f"{count} {state.lower()}" for state, count in sorted(states.items())] or ["no workers"]
    if sight.health is not None:
        jobs = sight.health.jobs
        told += [
            f"{n} jobs {what}" for n, what in ((jobs.in_queue, "waiting"), (jobs.in_progress, "taken")) if n
        ]
    return ", ".join(told)
