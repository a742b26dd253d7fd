"""What to do next for one deployment: an ordered tuple of small named rules, the first that speaks decides.

Pure and level-triggered: a decision follows from what is wanted, what is stored and what was seen, never from
how we came here, so that a process which dies at any point loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from moorage.domain.compute import RefusedOffer
from moorage.domain.deployment import Attempt, ConditionType, Deployment, Failure, Phase, Status
from moorage.domain.homes import elsewhere, told_away
from moorage.domain.observation import Observation, Trouble, WorkerReport, WorkerState
from moorage.domain.steps import (
    Abandon,
    Apply,
    Away,
    Begin,
    Create,
    Enter,
    GiveUp,
    Halt,
    Look,
    Place,
    Remove,
    Report,
    Rest,
    Restore,
    Step,
    Validate,
    Vanished,
    Wait,
    WakeUp,
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the rules wait, in seconds."""

    ready_timeout: float = 900.0  # from the endpoint's creation until it answers
    loading_look: float = 5.0  # between looks while loading, where no signal comes
    ready_look: float = 60.0  # between looks at what serves, where no signal comes


@dataclass(frozen=True, slots=True)
class Desired:
    deleted: bool
    min_replicas: int
    capacity_deadline_seconds: float
    patience: Patience = Patience()
    stopped: bool = False
    generation: int = 1
    wake_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """`seen` is None before anybody looked; `Vanished` when the provider knows nothing of the endpoint.
    `report` is what a worker said last, perhaps one of an earlier attempt. `here` is the machine
    that looks."""

    status: Status
    seen: Observation | Vanished | None = None
    report: WorkerReport | None = None
    here: str | None = None


def desired_of(deployment: Deployment, patience: Patience) -> Desired:
    spec = deployment.spec
    return Desired(
        deployment.deleted_at is not None,
        spec.min_replicas,
        spec.capacity_deadline_seconds,
        patience,
        spec.stopped,
        deployment.generation,
        deployment.wake_at,
    )


def decide(desired: Desired, observed: Observed, now: datetime) -> Step:
    for rule in RULES:
        step = rule(desired, observed, now)
        if step is not None:
            return step
    raise AssertionError("the last rule always speaks")


Rule = Callable[[Desired, Observed, datetime], Step | None]

TOLD_AGAIN_SECONDS = 10.0  # after it was told to wake
_SEEKING = (Phase.VALIDATING, Phase.SELECTING_GPU, Phase.CREATING_ENDPOINT)
_SETTLED = (Phase.READY, Phase.HIBERNATED)  # nothing is under way


def over(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """A deleted deployment, or a failed or stopped one of which nobody wants more, needs nothing."""
    phase = observed.status.phase
    if phase is Phase.DELETED or (phase is Phase.FAILED and not desired.deleted):
        return Rest()
    if phase is Phase.STOPPED and desired.stopped and not desired.deleted:
        return Rest()
    return None


def deletion_wins(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """Whenever it comes, a deletion is next."""
    if desired.deleted and observed.status.phase is not Phase.DELETING:
        return Enter(Phase.DELETING)
    return None


def stop_wanted(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """A failure that is being cleaned up after is told first."""
    status = observed.status
    if not desired.stopped or desired.deleted or status.failure is not None:
        return None
    if status.phase in (Phase.STOPPING, Phase.STOPPED, Phase.DELETING):
        return None
    return Enter(Phase.STOPPING)


def at_home_elsewhere(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """Nothing is done, and nothing concluded, where only another machine could look."""
    home = elsewhere(observed.status, observed.here)
    return None if home is None else Away(home)


def backing_off(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """After passing trouble nothing is tried before its time."""
    retry_at = observed.status.retry_at
    if retry_at is not None and now < retry_at:
        return Wait(retry_at)
    return None


def clean_first(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """What was created is removed, and its absence confirmed, before anything else is tried or said."""
    attempt = observed.status.attempt
    if attempt is not None and (attempt.abandoned or observed.status.phase is Phase.DELETING):
        return Remove(attempt)
    return None


def deleted(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    if observed.status.phase is Phase.DELETING:
        return Enter(Phase.DELETED)
    return None


def stopping(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """What was created is let down; an intent of which nobody knows whether it was is removed."""
    status = observed.status
    if status.phase is not Phase.STOPPING:
        return None
    if status.attempt is None:
        return Enter(Phase.STOPPED)
    return Remove(status.attempt) if status.attempt.handle is None else Halt(status.attempt)


def start_again(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """What was stopped is wanted again: where it stood, if it was kept there. One that was stopped before
    it was validated begins at the beginning."""
    status = observed.status
    if status.phase is not Phase.STOPPED or isinstance(observed.seen, Vanished):
        return None
    if status.attempt is not None:
        return Apply(status.attempt)
    return Enter(Phase.VALIDATING if status.profile is None else Phase.SELECTING_GPU)


def failed(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """`failed` is said only when nothing is left that bills."""
    if observed.status.failure is not None:
        return Enter(Phase.FAILED)
    return None


def out_of_time(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """The owner's deadline for finding capacity."""
    status = observed.status
    deadline = status.seeking_since + timedelta(seconds=desired.capacity_deadline_seconds)
    if status.phase in _SEEKING and now >= deadline:
        return GiveUp(capacity_failure(status, desired.capacity_deadline_seconds))
    return None


def validate(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    return Validate() if observed.status.phase is Phase.VALIDATING else None


def select(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    status = observed.status
    if status.phase is not Phase.SELECTING_GPU:
        return None
    rung = next(iter(status.ladder), None)
    if rung is None or rung.offer.home not in (None, observed.here):
        return Place()  # what another machine ranked was its own compute
    return Begin(rung)


def create(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    attempt = observed.status.attempt
    if attempt is not None and attempt.handle is None:
        return Create(attempt)
    return None


def apply_change(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """The owner wants something else than what the provider was told last."""
    attempt = observed.status.attempt
    if isinstance(observed.seen, Vanished):
        return None
    if attempt is not None and attempt.generation < desired.generation:
        return Apply(attempt)
    return None


def wake(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """Somebody asked for it while it slept."""
    status, wanted = observed.status, desired.wake_at
    if status.phase is not Phase.HIBERNATED or status.attempt is None or wanted is None:
        return None
    if isinstance(observed.seen, Vanished):
        return None
    return WakeUp(status.attempt) if wanted >= status.phase_since else None


def worker_failed(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """A worker that could not load the model said why. Of an endpoint that has served, it says nothing: the
    fault may be that worker's alone."""
    status, report = observed.status, observed.report
    attempt = status.attempt
    if attempt is None or report is None or report.endpoint != attempt.name:
        return None
    loads = status.phase is Phase.LOADING_MODEL and status.ready_at is None
    if report.state is not WorkerState.FAILED or not loads:
        return None
    return Abandon(
        Failure(
            "worker_failed",
            f"The worker could not load the model: {report.cause or 'it gave no cause'}",
            "Mend the model or the settings that the cause names, and deploy again.",
        )
    )


def look(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    status = observed.status
    if status.attempt is None or observed.seen is not None:
        return None
    if status.setbacks and _overdue(desired, status, now):
        return None  # nobody could look for too long: `too_slow` speaks
    return Look(status.attempt)


def replace_what_vanished(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """An endpoint deleted behind our back is made again, from the top of the ladder."""
    attempt = observed.status.attempt
    if attempt is None:
        # Only a store that somebody edited by hand leads here; selecting again is always safe.
        return Enter(Phase.SELECTING_GPU)
    if isinstance(observed.seen, Vanished):
        return Abandon(refusal(attempt, "the endpoint no longer exists at the provider"))
    return None


def troubled(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """Waiting will not help: the provider says why. During an update it is the change that is at fault: what
    there is stays, its volumes among it, until another change takes its place."""
    seen, attempt = observed.seen, observed.status.attempt
    if not isinstance(seen, Observation) or seen.trouble is None or attempt is None:
        return None
    if observed.status.phase is Phase.UPDATING:
        return None
    message = seen.message or seen.trouble.value
    if seen.trouble is Trouble.NO_CAPACITY:
        return Abandon(refusal(attempt, message))
    return Abandon(
        Failure(
            seen.trouble.value,
            "\n".join((message, *seen.log_tail)),
            "Read the last log lines above, mend the model or the settings, and deploy again.",
        )
    )


def drifted(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """What runs is not what was asked for: somebody else changed it."""
    seen, attempt = observed.seen, observed.status.attempt
    if not isinstance(seen, Observation) or seen.drift is None or attempt is None:
        return None
    return Restore(attempt, seen.drift)


def sleeps_unproven(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """An endpoint that its autoscaler let sleep before it ever answered has not shown that it can; one that
    was woken and sleeps on is told again."""
    status, seen = observed.status, observed.seen
    if status.phase not in (Phase.LOADING_MODEL, Phase.WAKING) or status.attempt is None:
        return None
    if status.phase is Phase.WAKING and now < status.phase_since + timedelta(seconds=TOLD_AGAIN_SECONDS):
        return None  # it may not have noticed yet
    return WakeUp(status.attempt) if isinstance(seen, Observation) and seen.asleep else None


def too_slow(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    status, limit = observed.status, desired.patience.ready_timeout
    if not _overdue(desired, status, now):
        return None
    if isinstance(observed.seen, Observation) and serves(desired, status, observed.seen):
        return None
    if status.phase is Phase.WAKING:  # it has served: whoever asks next has it try again
        return Enter(Phase.HIBERNATED)
    return Abandon(
        Failure(
            "readiness_timeout",
            f"The endpoint did not answer within {limit:.0f} s.",
            "See its logs. A model that needs longer to load needs a longer MOORAGE_READY_TIMEOUT_SECONDS.",
        )
    )


def report(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    """What was seen differs from what is stored."""
    status, seen = observed.status, observed.seen
    if not isinstance(seen, Observation):
        return None
    if (
        seen.targets != status.targets
        or phase_after(desired, status, seen) is not status.phase
        or _stuck_otherwise(status, seen)
        or status.setbacks
        or told_away(status) is not None
        or seen.access != status.access
        or (status.attempt is not None and remembers_more(status.attempt, seen))
        or (status.attempt is not None and costs_otherwise(status, status.attempt, seen))
    ):
        return Report(seen)
    return None


def wait(desired: Desired, observed: Observed, now: datetime) -> Step | None:
    patience = desired.patience
    seconds = patience.ready_look if observed.status.phase in _SETTLED else patience.loading_look
    return Wait(now + timedelta(seconds=seconds))


RULES: tuple[Rule, ...] = (
    over,
    deletion_wins,
    stop_wanted,
    at_home_elsewhere,
    backing_off,
    clean_first,
    deleted,
    failed,
    stopping,
    start_again,
    out_of_time,
    validate,
    select,
    create,
    worker_failed,
    apply_change,
    wake,
    look,
    replace_what_vanished,
    troubled,
    too_slow,
    sleeps_unproven,
    report,
    drifted,
    wait,
)


def enough(desired: Desired, seen: Observation) -> bool:
    """As many replicas answer as the owner asked for."""
    return len(seen.targets) >= max(1, desired.min_replicas)


def serves(desired: Desired, status: Status, seen: Observation) -> bool:
    """Whether it may be called ready: first with all replicas that were asked for, after that with any."""
    return enough(desired, seen) or (status.ready_at is not None and bool(seen.targets))


def phase_after(desired: Desired, status: Status, seen: Observation) -> Phase:
    """The phase that follows from what was seen of an endpoint."""
    phase = status.phase
    match phase:
        case Phase.READY | Phase.UPDATING if seen.asleep:
            return Phase.HIBERNATED
        case Phase.READY if not seen.targets:
            return Phase.LOADING_MODEL
        case Phase.UPDATING:
            under_way = seen.updating or seen.trouble is not None or not enough(desired, seen)
            return phase if under_way else Phase.READY
        case Phase.HIBERNATED | Phase.WAKING:
            return Phase.READY if seen.targets else phase
        case Phase.LOADING_MODEL:
            return Phase.READY if serves(desired, status, seen) else phase
        case _:
            return phase


def _stuck_otherwise(status: Status, seen: Observation) -> bool:
    """Whether an update is held up by something that has not been told yet."""
    if status.phase is not Phase.UPDATING or seen.message is None:
        return False
    told = next((c.message for c in status.conditions if c.type is ConditionType.PROGRESSING), None)
    return told != seen.message


def remembers_more(attempt: Attempt, seen: Observation) -> bool:
    """Whether the provider wants something in the handle that is not there yet."""
    if attempt.handle is None or seen.ref is None:
        return False
    return {**attempt.handle.ref, **seen.ref} != dict(attempt.handle.ref)


def costs_otherwise(status: Status, attempt: Attempt, seen: Observation) -> bool:
    """Whether more or fewer replicas are billed than the meter counts."""
    offer = attempt.rung.offer
    billed = offer.by_running and seen.running is not None
    return billed and offer.price_per_hour * (seen.running or 0) != status.meter.per_hour


def refusal(attempt: Attempt, reason: str, advice: str | None = None) -> RefusedOffer:
    offer = attempt.rung.offer
    return RefusedOffer(
        offer.provider, offer.gpu, offer.count, reason, advice, offer.region, offer.price_per_hour
    )


def _overdue(desired: Desired, status: Status, now: datetime) -> bool:
    limit = timedelta(seconds=desired.patience.ready_timeout)
    return status.phase in (Phase.LOADING_MODEL, Phase.WAKING) and now >= status.phase_since + limit


def capacity_failure(status: Status, seconds: float) -> Failure:
    """The whole story of a search that ended without compute."""
    if status.phase is Phase.VALIDATING:
        return Failure(
            "hub_unavailable",
            f"The model could not be validated within {seconds:.0f} s. {status.setback or ''}".strip(),
            "Deploy again when the Hub answers.",
        )
    told = [f"{r.where}: {r.reason}" for r in status.refused]
    reason = status.setback or "; ".join(told) or "no offer was tried"
    return Failure(
        "no_capacity",
        f"No compute within {seconds:.0f} s, in {status.round} rounds. {reason}",
        next((r.smallest_change for r in status.refused if r.smallest_change), None)
        or "Try again later, allow more providers or a higher price, or raise capacity_deadline_seconds.",
    )
