"""What a step, once done, makes of a deployment.

`advance` is the only writer of status. It is pure: the engine stores its result, with its facts as events and
webhook deliveries, in one unit of work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from moorage.domain.compute import RefusedOffer, Rung
from moorage.domain.decide import Patience, costs_otherwise, desired_of, phase_after, refusal
from moorage.domain.deployment import (
    Attempt,
    ConditionType,
    Deployment,
    Failure,
    Meter,
    Phase,
    ReplicaCounts,
    Status,
    Truth,
    with_condition,
)
from moorage.domain.homes import HOME_AWAY, away_message, look_again, told_away
from moorage.domain.naming import ExternalName
from moorage.domain.observation import Observation
from moorage.domain.retry import Backoff
from moorage.domain.steps import (
    Abandon,
    Applied,
    Away,
    Begin,
    Broken,
    Created,
    Enter,
    GiveUp,
    Halted,
    Later,
    NotApplied,
    Outcome,
    Placed,
    Profiled,
    Refused,
    Removed,
    Report,
    Rest,
    Restored,
    Step,
    Wait,
    Woken,
)

SETBACK = Backoff(base=0.5, cap=30.0)  # between tries of one step after passing trouble
ROUND = Backoff(base=2.0, cap=60.0, spread=0.5)  # between rounds of the ladder without capacity
KEPT_REFUSALS = 30
_SERVED = (Phase.READY, Phase.UPDATING, Phase.HIBERNATED, Phase.WAKING, Phase.STOPPED)
RESTORE_SECONDS = 5.0  # after a drift was put back, before the next look
WOKEN_AGAIN_SECONDS = 10.0  # the same, of one that slept on
START_AGAIN_SECONDS = 60.0  # after a provider refused to start what was stopped
WOKEN_SECONDS = 1.0  # after it was told to wake, before the next look; a signal does not shorten it


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened; becomes an event, and a webhook when its type is one that is notified."""

    type: str
    message: str
    data: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """`deployment.due_at` says when to look again; `rests` whether to let go of it until then."""

    deployment: Deployment
    facts: tuple[Fact, ...] = ()
    rests: bool = False


def advance(deployment: Deployment, did: Step | Outcome, now: datetime, luck: float = 0.0) -> Change:
    """The deployment after `did`: a pure step, or an effect's outcome. `luck` in [0, 1) is for jitter."""
    match did:
        case Rest():
            return Change(replace(deployment, due_at=None), rests=True)
        case Wait(until):
            return Change(replace(deployment, due_at=until), rests=True)
        case Later(why, after):
            return _later(deployment, why, after, now, luck)
        case Away(home):
            return _away(deployment, home, now)
    status, facts = _status_after(deployment, did, now, luck)
    if status.setbacks or told_away(status) is not None:
        status = replace(status, setbacks=0, setback=None)
        status = _condition(status, ConditionType.PROGRESSING, Truth.TRUE, "Recovered", "", now)
    return Change(replace(deployment, status=status, due_at=now), facts)


def _later(deployment: Deployment, why: str, after: float | None, now: datetime, luck: float) -> Change:
    setbacks = deployment.status.setbacks + 1
    delay = SETBACK.delay(setbacks, luck) if after is None else after
    retry_at = now + timedelta(seconds=delay)
    status = replace(deployment.status, setbacks=setbacks, setback=why, retry_at=retry_at)
    status = _condition(status, ConditionType.PROGRESSING, Truth.FALSE, "Retrying", why, now)
    # The first setback is worth an event, its repetitions are not.
    facts = (Fact("deployment.setback", why, {"retry_in_seconds": round(delay, 3)}),) if setbacks == 1 else ()
    return Change(replace(deployment, status=status, due_at=retry_at), facts)


def _away(deployment: Deployment, home: str, now: datetime) -> Change:
    before, message = told_away(deployment.status), away_message(home)
    status = _condition(deployment.status, ConditionType.PROGRESSING, Truth.FALSE, HOME_AWAY, message, now)
    facts = () if before is not None else (Fact("deployment.home_away", message, {"machine": home}),)
    due_at = look_again(now if before is None else before.since, now)
    return Change(replace(deployment, status=status, due_at=due_at), facts, rests=True)


def _status_after(
    deployment: Deployment, did: Step | Outcome, now: datetime, luck: float
) -> tuple[Status, tuple[Fact, ...]]:
    status = replace(deployment.status, retry_at=None)
    match did:
        case Enter(phase):
            return _entered(status, phase, now)
        case Applied() | NotApplied() | Halted() | Woken() | Restored():
            return _changed(deployment, status, did, now)
        case Profiled(profile):
            status = replace(status, profile=profile)
            status = _condition(status, ConditionType.MODEL_VALIDATED, Truth.TRUE, "Found", _found(did), now)
            return _entered(status, Phase.SELECTING_GPU, now)
        case Placed():
            return _placed(status, did, now)
        case Begin(rung):
            return _begun(deployment, status, rung, now)
        case Created():
            return _created(deployment, status, did, now)
        case Refused():
            return _refused(status, did, now)
        case Abandon(why):
            return _abandoned(status, _present(status), why, now)
        case GiveUp(failure) | Broken(failure):
            return _given_up(status, failure, now)
        case Report(seen):
            return _reported(deployment, status, seen, now)
        case Removed():
            return _removed(status, now, luck)
        case _:
            raise TypeError(f"{did!r} changes no status")


def _changed(
    deployment: Deployment,
    status: Status,
    did: Applied | NotApplied | Halted | Woken | Restored,
    now: datetime,
) -> tuple[Status, tuple[Fact, ...]]:
    """What runs was changed in its place."""
    match did:
        case Applied():
            return _applied(deployment, status, did, now)
        case NotApplied():
            return _not_applied(status, did, now)
        case Halted():
            return _entered(_unbilled(status, now), Phase.STOPPED, now)
        case Woken():
            return _woken(status, now)
        case Restored(drift):
            status = replace(status, retry_at=now + timedelta(seconds=RESTORE_SECONDS))
            return status, (Fact("deployment.drift_corrected", f"{drift}; put back as it was asked for."),)


def _found(outcome: Profiled) -> str:
    profile = outcome.profile
    return "a container image" if profile is None else f"{profile.repo_id} at {profile.revision[:12]}"


def _present(status: Status) -> Attempt:
    if status.attempt is None:
        raise ValueError("there is no attempt to give up")
    return status.attempt


def _condition(
    status: Status, type_: ConditionType, truth: Truth, reason: str, message: str, now: datetime
) -> Status:
    return replace(status, conditions=with_condition(status.conditions, type_, truth, reason, message, now))


def _in_phase(status: Status, phase: Phase, now: datetime) -> Status:
    """`status` in `phase`, with the time spent in the one before added to its account."""
    spent = (now - status.phase_since).total_seconds() + status.phase_seconds.get(status.phase, 0.0)
    seconds = {**status.phase_seconds, status.phase.value: round(spent, 6)}
    return replace(status, phase=phase, phase_since=now, phase_seconds=seconds)


_SAYS = {
    Phase.VALIDATING: "The model is being validated.",
    Phase.HIBERNATED: "It did not wake in time; the next request has it try again.",
    Phase.SELECTING_GPU: "Looking for the cheapest compute that it fits on.",
    Phase.DELETING: "Deleting the endpoint.",
    Phase.DELETED: "Nothing is left of it at the provider.",
    Phase.STOPPING: "Stopping its replicas.",
    Phase.STOPPED: "No replica is left; it can be started again.",
}


def _entered(status: Status, phase: Phase, now: datetime) -> tuple[Status, tuple[Fact, ...]]:
    status = _in_phase(status, phase, now)
    if phase is Phase.FAILED and status.failure is not None:
        failure = status.failure
        status = _condition(status, ConditionType.PROGRESSING, Truth.FALSE, "Failed", failure.detail, now)
        status = _condition(status, ConditionType.CLEANED_UP, Truth.TRUE, "NothingLeft", "", now)
        return status, (Fact("deployment.failed", failure.detail, {"code": failure.code}),)
    if phase is Phase.DELETED:
        status = _condition(status, ConditionType.CLEANED_UP, Truth.TRUE, "NothingLeft", "", now)
    if phase in (Phase.DELETING, Phase.STOPPING):
        reason = phase.value.capitalize()
        status = replace(status, targets=(), replicas=ReplicaCounts())
        status = _condition(status, ConditionType.SERVING, Truth.FALSE, reason, "", now)
    if phase is Phase.DELETING:
        status = _condition(status, ConditionType.CLEANED_UP, Truth.FALSE, "Deleting", "", now)
    if phase in (Phase.VALIDATING, Phase.SELECTING_GPU):  # the owner's deadline counts from here
        status = replace(status, seeking_since=now, round=0, ladder=(), refused=())
    return status, (Fact(f"deployment.{phase}", _SAYS.get(phase, "")),)


def _placed(status: Status, did: Placed, now: datetime) -> tuple[Status, tuple[Fact, ...]]:
    ladder = did.placement.ladder
    status = replace(
        status,
        ladder=ladder,
        round=status.round + 1,
        refused=did.placement.refused[:KEPT_REFUSALS],
        estimate=ladder[0].estimate if ladder else status.estimate,
    )
    message = f"{len(ladder)} offers fit, {len(did.placement.refused)} do not."
    status = _condition(status, ConditionType.PLACED, Truth.TRUE, "Ranked", message, now)
    return status, ()


def _begun(
    deployment: Deployment, status: Status, rung: Rung, now: datetime
) -> tuple[Status, tuple[Fact, ...]]:
    number = status.attempts + 1
    name = str(ExternalName(deployment.id, deployment.revision, number))
    status = replace(
        _in_phase(status, Phase.CREATING_ENDPOINT, now),
        ladder=status.ladder[1:],
        attempt=Attempt(number, rung, name, now, generation=deployment.generation),
        attempts=number,
        estimate=rung.estimate,
    )
    offer = rung.offer
    what = f"{offer.provider} {offer.gpu or 'CPU'} x{offer.count or 1} at ${offer.price_per_hour:.4f}/h"
    data = {"provider": offer.provider, "gpu": offer.gpu, "attempt": number, "name": name}
    return status, (Fact("deployment.creating_endpoint", f"Creating the endpoint on {what}.", data),)


def _created(
    deployment: Deployment, status: Status, did: Created, now: datetime
) -> tuple[Status, tuple[Fact, ...]]:
    attempt = _present(status)
    desired, offer = max(1, deployment.spec.min_replicas), attempt.rung.offer
    per_hour = 0.0 if offer.by_running else offer.price_per_hour * desired
    status = replace(
        _in_phase(status, Phase.LOADING_MODEL, now),
        attempt=replace(attempt, handle=did.handle),
        replicas=ReplicaCounts(desired, 0),
        meter=status.meter.start(per_hour, now),
    )
    status = _condition(status, ConditionType.ENDPOINT_CREATED, Truth.TRUE, "Created", attempt.name, now)
    status = _condition(status, ConditionType.CAPACITY_AVAILABLE, Truth.TRUE, "Placed", "", now)
    status = _condition(status, ConditionType.CLEANED_UP, Truth.FALSE, "Running", "", now)
    return status, (Fact("deployment.loading_model", "The endpoint exists; the model is loading."),)


def _applied(
    deployment: Deployment, status: Status, did: Applied, now: datetime
) -> tuple[Status, tuple[Fact, ...]]:
    attempt, was = _present(status), status.phase
    desired, offer = max(1, deployment.spec.min_replicas), attempt.rung.offer
    status = replace(
        status,
        attempt=replace(attempt, handle=did.handle, generation=did.generation),
        replicas=ReplicaCounts(desired, len(status.targets)),
    )
    if not offer.by_running:
        status = replace(status, meter=status.meter.start(offer.price_per_hour * desired, now))
    if was is Phase.STOPPED:
        status = replace(status, seeking_since=now, round=0, ladder=(), refused=())
        fact = Fact("deployment.loading_model", "Started again; the model is loading.")
        return _in_phase(status, Phase.LOADING_MODEL, now), (fact,)
    if was in (Phase.READY, Phase.UPDATING):
        status = _condition(status, ConditionType.PROGRESSING, Truth.TRUE, "Updating", "", now)
        fact = Fact("deployment.updating", "The change is being rolled out.", {"generation": did.generation})
        return _in_phase(status, Phase.UPDATING, now), (fact,)
    return status, ()


def _not_applied(status: Status, did: NotApplied, now: datetime) -> tuple[Status, tuple[Fact, ...]]:
    attempt = replace(_present(status), generation=did.generation)
    why = f"{did.reason} {did.advice or ''}".strip()
    if status.phase is Phase.STOPPED:  # a start: wanted as it is, so it is tried again
        told = any(c.reason == "StartRefused" and c.message == why for c in status.conditions)
        status = _condition(status, ConditionType.PROGRESSING, Truth.FALSE, "StartRefused", why, now)
        status = replace(status, retry_at=now + timedelta(seconds=START_AGAIN_SECONDS))
        return status, () if told else (Fact("deployment.start_refused", why),)
    status = _condition(status, ConditionType.PROGRESSING, Truth.FALSE, "UpdateRefused", why, now)
    fact = Fact("deployment.update_refused", why, {"generation": did.generation})
    return replace(status, attempt=attempt), (fact,)


def _woken(status: Status, now: datetime) -> tuple[Status, tuple[Fact, ...]]:
    seconds = WOKEN_AGAIN_SECONDS if status.phase is Phase.WAKING else WOKEN_SECONDS
    status = replace(status, retry_at=now + timedelta(seconds=seconds))
    if status.phase is not Phase.HIBERNATED:
        return status, ()
    return _in_phase(status, Phase.WAKING, now), (Fact("deployment.waking", "It was asked for."),)


def _unbilled(status: Status, now: datetime) -> Status:
    meter = status.meter if status.meter.since is None else status.meter.stop(now)
    return replace(status, meter=Meter(meter.accrued))


def _refused(status: Status, did: Refused, now: datetime) -> tuple[Status, tuple[Fact, ...]]:
    attempt = _present(status)
    if did.whole_provider:
        full = (attempt.rung.offer.provider, attempt.rung.offer.account)
        rest = tuple(r for r in status.ladder if (r.offer.provider, r.offer.account) != full)
        status = replace(status, ladder=rest)
        if not status.ladder:
            return _given_up(status, Failure("quota_exceeded", did.reason, did.advice), now)
    return _abandoned(status, attempt, refusal(attempt, did.reason, did.advice), now)


def _abandoned(
    status: Status, attempt: Attempt, why: RefusedOffer | Failure, now: datetime
) -> tuple[Status, tuple[Fact, ...]]:
    status = replace(status, targets=(), replicas=ReplicaCounts(status.replicas.desired, 0))
    if isinstance(why, Failure):
        return _given_up(status, why, now)
    if status.phase in _SERVED:  # it was lost after it had served: the search begins anew
        status = replace(status, seeking_since=now, round=0, ladder=())
    status = replace(
        status,
        attempt=replace(attempt, refusal=why),
        refused=(*status.refused, why)[-KEPT_REFUSALS:],
    )
    status = _condition(status, ConditionType.SERVING, Truth.FALSE, "Lost", why.reason, now)
    status = _condition(status, ConditionType.CAPACITY_AVAILABLE, Truth.FALSE, "Refused", why.reason, now)
    data = {"provider": why.provider, "gpu": why.gpu, "attempt": attempt.number}
    return status, (Fact("deployment.capacity_fallback", why.reason, data),)


def _given_up(status: Status, failure: Failure, now: datetime) -> tuple[Status, tuple[Fact, ...]]:
    attempt = None if status.attempt is None else replace(status.attempt, failed=True)
    counts = ReplicaCounts(status.replicas.desired, 0)
    status = replace(status, attempt=attempt, failure=failure, targets=(), replicas=counts)
    status = _condition(status, ConditionType.SERVING, Truth.FALSE, failure.code, failure.detail, now)
    status = _condition(status, ConditionType.PROGRESSING, Truth.FALSE, failure.code, failure.detail, now)
    if status.phase is Phase.VALIDATING:
        status = _condition(
            status, ConditionType.MODEL_VALIDATED, Truth.FALSE, failure.code, failure.detail, now
        )
    return status, ()


def _reported(
    deployment: Deployment, status: Status, seen: Observation, now: datetime
) -> tuple[Status, tuple[Fact, ...]]:
    targets = seen.targets
    desired = max(1, deployment.spec.min_replicas)
    status = _remembered(status, seen, now)
    status = replace(
        status, targets=targets, access=seen.access, replicas=ReplicaCounts(desired, len(targets))
    )
    was, phase = status.phase, phase_after(desired_of(deployment, Patience()), status, seen)
    if phase is Phase.UPDATING:
        stuck = Truth.FALSE if seen.trouble is not None else Truth.TRUE
        message = seen.message or ""
        status = _condition(status, ConditionType.PROGRESSING, stuck, "Updating", message, now)
    if targets:
        reason = "AllReplicas" if len(targets) >= desired else "SomeReplicas"
        message = f"{len(targets)} of {desired} replicas answer."
        status = _condition(status, ConditionType.SERVING, Truth.TRUE, reason, message, now)
    if phase is was:
        return status, ()
    if phase is Phase.HIBERNATED:
        message = "Its autoscaler let the last replica go."
        status = _condition(status, ConditionType.SERVING, Truth.FALSE, "Hibernated", message, now)
        return _in_phase(status, phase, now), (Fact("deployment.hibernated", message),)
    if phase is Phase.LOADING_MODEL:
        why = seen.message or "No replica answers."
        status = _condition(status, ConditionType.SERVING, Truth.FALSE, "NoReplica", why, now)
        status = replace(status, seeking_since=now, round=0)  # should it be lost, the search begins anew
        return _in_phase(status, phase, now), (Fact("deployment.loading_model", why),)
    return _answers(deployment, status, was, now)


def _answers(
    deployment: Deployment, status: Status, was: Phase, now: datetime
) -> tuple[Status, tuple[Fact, ...]]:
    again = status.ready_at is not None
    status = replace(_in_phase(status, Phase.READY, now), ready_at=now)
    status = _condition(status, ConditionType.PROGRESSING, Truth.TRUE, "Ready", "", now)
    if was is Phase.UPDATING:
        return status, (Fact("deployment.updated", "All replicas run what was asked for."),)
    seconds = (now - deployment.created_at).total_seconds()
    message = "It answers again." if again else f"It answers, {seconds:.1f} s after it was asked for."
    return status, (Fact("deployment.ready", message),)


def _remembered(status: Status, seen: Observation, now: datetime) -> Status:
    """With what the provider wants to find in the handle again, and the meter at what is billed now."""
    attempt = status.attempt
    if attempt is None:
        return status
    if attempt.handle is not None and seen.ref is not None:
        handle = replace(attempt.handle, ref={**attempt.handle.ref, **seen.ref})
        status = replace(status, attempt=replace(attempt, handle=handle))
    if costs_otherwise(status, attempt, seen):
        per_hour = attempt.rung.offer.price_per_hour * (seen.running or 0)
        status = replace(status, meter=status.meter.start(per_hour, now))
    return status


def _removed(status: Status, now: datetime, luck: float) -> tuple[Status, tuple[Fact, ...]]:
    attempt = _present(status)
    status = replace(_unbilled(status, now), attempt=None, replicas=ReplicaCounts())
    status = _condition(status, ConditionType.ENDPOINT_CREATED, Truth.FALSE, "Removed", attempt.name, now)
    status = _condition(status, ConditionType.CLEANED_UP, Truth.TRUE, "NothingLeft", "", now)
    fact = Fact("deployment.endpoint_removed", f"{attempt.name} is gone.", {"attempt": attempt.number})
    if status.phase in (Phase.DELETING, Phase.STOPPING) or attempt.failed:
        return status, (fact,)
    status = _in_phase(status, Phase.SELECTING_GPU, now)
    if not status.ladder and status.round:
        wait = ROUND.delay(max(1, status.round), luck)
        status = replace(status, retry_at=now + timedelta(seconds=wait))
    return status, (fact, Fact("deployment.selecting_gpu", "Trying the next offer."))
