"""The rules, one by one, from the first look at a model to the end of its deployment."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from moorage.domain.compute import Estimate, Placement, Rung
from moorage.domain.decide import Observed, decide, desired_of
from moorage.domain.deployment import (
    ConditionType,
    Deployment,
    Failure,
    Handle,
    Phase,
    Truth,
)
from moorage.domain.observation import (
    Observation,
    Trouble,
    WorkerReport,
    WorkerState,
)
from moorage.domain.steps import (
    Abandon,
    Begin,
    Create,
    Created,
    Enter,
    GiveUp,
    Later,
    Look,
    Place,
    Placed,
    Profiled,
    Refused,
    Remove,
    Removed,
    Report,
    Rest,
    Restore,
    Restored,
    Validate,
    Vanished,
    Wait,
)
from moorage.domain.transition import advance

from .lives import (
    ANSWERS,
    LOADS,
    PATIENCE,
    PROFILE,
    RUNGS,
    START,
    deployment,
    loading,
    next_step,
    offer,
    placed,
    through,
)


def test_the_straight_way_to_ready() -> None:
    d = deployment()
    assert isinstance(next_step(d), Validate)
    d = through(d, Profiled(PROFILE))
    assert d.phase is Phase.SELECTING_GPU
    assert isinstance(next_step(d), Place)
    d = through(d, Placed(Placement(RUNGS, ())))
    assert next_step(d) == Begin(RUNGS[0])
    d = through(d, Begin(RUNGS[0]))
    assert d.phase is Phase.CREATING_ENDPOINT
    assert isinstance(next_step(d), Create)
    d = loading()
    assert isinstance(next_step(d), Look)
    assert isinstance(next_step(d, seen=LOADS), Wait)
    assert next_step(d, seen=ANSWERS) == Report(ANSWERS)
    d = through(d, Report(ANSWERS))
    assert d.phase is Phase.READY
    assert d.status.targets == ("http://127.0.0.1:1",)
    assert isinstance(next_step(d, seen=ANSWERS), Wait)


def test_intent_is_stored_before_effect() -> None:
    """A create is only ever chosen for an attempt that the store already has."""
    d = placed()
    assert isinstance(next_step(d), Begin)
    d = through(d, next_step(d))
    step = next_step(d)
    assert isinstance(step, Create)
    assert step.attempt == d.status.attempt
    assert step.attempt.name == f"mrg-{'a' * 26}-r1-a1"


@pytest.mark.parametrize(
    "d", [deployment(), placed(), loading(), through(loading(), Report(ANSWERS))], ids=lambda d: d.phase
)
def test_deletion_wins_in_every_phase_and_removes_what_may_exist(d: Deployment) -> None:
    d = replace(d, deleted_at=START)
    assert d.phase is Phase.DELETING
    assert next_step(d) == Enter(Phase.DELETING)
    d = through(d, Enter(Phase.DELETING))
    if d.status.attempt is not None:
        assert isinstance(next_step(d), Remove)
        d = through(d, Removed())
    assert next_step(d) == Enter(Phase.DELETED)
    d = through(d, Enter(Phase.DELETED))
    assert isinstance(next_step(d), Rest)


def test_no_capacity_goes_down_the_ladder_and_round_again() -> None:
    d = placed()
    for rung in RUNGS:
        assert next_step(d) == Begin(rung)
        d = through(d, Begin(rung), Refused("no room"))
        assert isinstance(next_step(d), Remove), "absence is confirmed before the next offer"
        d = through(d, Removed())
    step = next_step(d)
    assert isinstance(step, Wait), "a whole round without capacity waits"
    assert isinstance(next_step(d, step.until), Place)
    late = START + timedelta(seconds=100)
    give_up = next_step(d, late)
    assert isinstance(give_up, GiveUp)
    assert "no room" in give_up.failure.detail
    d = through(d, give_up, Enter(Phase.FAILED), now=late)
    assert d.phase is Phase.FAILED


def test_a_crash_loop_is_a_failure_that_is_told_after_the_cleanup() -> None:
    broken = Observation(
        (), trouble=Trouble.CRASH_LOOP, message="exited 3 times", log_tail=("x", "ImportError")
    )
    d = loading()
    d = through(d, next_step(d, seen=broken))
    assert d.phase is Phase.LOADING_MODEL, "not failed while something may bill"
    assert isinstance(next_step(d), Remove)
    d = through(d, Removed())
    assert next_step(d) == Enter(Phase.FAILED)
    change = advance(d, Enter(Phase.FAILED), START)
    assert change.facts[0].type == "deployment.failed"
    assert change.deployment.status.failure is not None
    assert "ImportError" in change.deployment.status.failure.detail


def test_too_slow_is_a_failure() -> None:
    d = loading()
    assert isinstance(next_step(d, START + timedelta(seconds=59), LOADS), Wait)
    d = through(d, next_step(d, START + timedelta(seconds=60), LOADS))
    assert d.status.failure is not None
    assert d.status.failure.code == "readiness_timeout"


def test_what_nobody_can_look_at_is_given_up_in_time() -> None:
    d = through(loading(), Later("the provider is silent"))
    d = replace(d, status=replace(d.status, retry_at=None))
    assert isinstance(next_step(d, START + timedelta(seconds=59)), Look)
    assert isinstance(next_step(d, START + timedelta(seconds=60)), Abandon)


def test_what_was_lost_after_it_had_served_is_searched_for_anew() -> None:
    later = START + timedelta(days=2)
    d = through(loading(), Report(ANSWERS))
    d = through(d, Report(LOADS), now=later)
    assert d.phase is Phase.LOADING_MODEL
    d = through(d, next_step(d, later, Vanished()), Removed(), now=later)
    assert isinstance(next_step(d, later), Begin | Place), "not: out of time"


def test_a_failure_no_longer_serves() -> None:
    d = through(loading(), Report(ANSWERS))
    d = through(d, Abandon(Failure("crash_loop", "it crashed")), Removed(), Enter(Phase.FAILED))
    assert {c.type: c.status for c in d.status.conditions}[ConditionType.SERVING] is Truth.FALSE
    assert d.status.replicas.ready == 0


def test_ready_is_taken_back_when_nothing_answers() -> None:
    d = through(loading(), Report(ANSWERS))
    d = through(d, next_step(d, seen=LOADS))
    assert d.phase is Phase.LOADING_MODEL
    assert d.status.targets == ()


def test_what_vanished_is_made_again_however_old_it_is() -> None:
    later = START + timedelta(days=3)
    d = through(loading(), Report(ANSWERS))
    d = through(d, next_step(d, later, Vanished()), Removed(), now=later)
    assert d.phase is Phase.SELECTING_GPU
    assert isinstance(next_step(d, later), Begin | Place)


def test_ready_means_as_many_replicas_as_were_asked_for() -> None:
    d = loading()
    d = replace(d, spec=replace(d.spec, min_replicas=2, max_replicas=2))
    assert not isinstance(next_step(d, seen=replace(ANSWERS)), Enter)
    d = through(d, next_step(d, seen=ANSWERS))
    assert d.phase is Phase.LOADING_MODEL
    assert d.status.replicas.ready == 1


def test_the_meter_runs_from_creation_to_confirmed_absence() -> None:
    d = loading()
    hour = START + timedelta(hours=1)
    assert d.status.meter.at(hour) == pytest.approx(0.5)
    d = through(replace(d, deleted_at=hour), Enter(Phase.DELETING), Removed(), now=hour)
    assert d.status.meter.at(hour + timedelta(days=1)) == pytest.approx(0.5)


RENTED = Rung(replace(offer("rented"), by_running=True), "diffusers", Estimate(1, 1.0, ()))
ELSEWHERE = Rung(replace(offer("own"), provider="q"), "onnx", Estimate(1, 1.0, ()))


def rented() -> Deployment:
    d = through(deployment(), Profiled(PROFILE), Placed(Placement((RENTED,), ())), Begin(RENTED))
    assert d.status.attempt is not None
    return through(d, Created(Handle("p", d.status.attempt.name, {"id": "e1"})))


def test_where_only_running_replicas_are_billed_the_meter_follows_them() -> None:
    d, hour = rented(), START + timedelta(hours=1)
    assert d.status.meter.at(hour) == 0.0
    two = replace(ANSWERS, running=2)
    d = through(d, next_step(d, seen=two))
    assert d.status.meter.at(hour) == pytest.approx(1.0)
    assert isinstance(next_step(d, hour, two), Wait)
    d = through(d, next_step(d, hour, replace(ANSWERS, running=0)), now=hour)
    assert d.phase is Phase.READY
    assert d.status.meter.at(hour + timedelta(days=1)) == pytest.approx(1.0)


def test_what_the_provider_wants_to_remember_is_in_the_handle_at_its_next_look() -> None:
    d = rented()
    proved = replace(LOADS, ref={"warm_up": "job-1"})
    d = through(d, next_step(d, seen=proved))
    assert d.status.attempt is not None
    assert d.status.attempt.handle is not None
    assert d.status.attempt.handle.ref == {"id": "e1", "warm_up": "job-1"}
    assert isinstance(next_step(d, seen=proved), Wait), "it is stored once"


def test_drift_is_put_back_told_and_looked_at_again() -> None:
    d = through(rented(), Report(ANSWERS))
    drift = replace(ANSWERS, drift="workers.max is 0, 3 was asked for")
    step = next_step(d, seen=drift)
    assert isinstance(step, Restore)
    change = advance(d, Restored(step.drift), START)
    assert [fact.type for fact in change.facts] == ["deployment.drift_corrected"]
    assert isinstance(next_step(change.deployment), Wait), "not at once: the provider may need a moment"
    assert isinstance(next_step(change.deployment, START + timedelta(seconds=6)), Look)


def report(d: Deployment, state: WorkerState, attempt: int = 1) -> Deployment:
    name = f"mrg-{'a' * 26}-r1-a{attempt}"
    return replace(d, report=WorkerReport(name, "w", state, START, cause="CUDA out of memory"))


def test_a_worker_that_cannot_load_fails_the_deployment_before_anybody_looks() -> None:
    failed = report(loading(), WorkerState.FAILED)
    step = decide(desired_of(failed, PATIENCE), Observed(failed.status, None, failed.report), START)
    assert isinstance(step, Abandon)
    assert isinstance(step.why, Failure)
    assert "CUDA out of memory" in step.why.detail


@pytest.mark.parametrize(
    "d",
    [
        report(loading(), WorkerState.LOADING),
        report(loading(), WorkerState.FAILED, attempt=2),
        report(through(loading(), Report(ANSWERS)), WorkerState.FAILED),
    ],
    ids=["it loads", "of another attempt", "of one that has served"],
)
def test_what_a_worker_says_otherwise_decides_nothing(d: Deployment) -> None:
    step = decide(desired_of(d, PATIENCE), Observed(d.status, None, d.report), START)
    assert isinstance(step, Look)


def test_a_quota_leaves_the_offers_of_other_providers() -> None:
    d = through(deployment(), Profiled(PROFILE), Placed(Placement((*RUNGS, ELSEWHERE), ())))
    d = through(d, Begin(RUNGS[0]), Refused("at most 3 workers", whole_provider=True))
    assert isinstance(next_step(d), Remove)
    assert next_step(through(d, Removed())) == Begin(ELSEWHERE)
