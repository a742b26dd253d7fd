"""The rules, one by one and against a hostile world: whatever outcomes come, a deployment always has a next
step or is over, nothing is created twice, and nothing is left behind."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.domain.compute import Availability, Estimate, Offer, Placement, Rung
from moorage.domain.decide import Observed, Patience, decide, desired_of
from moorage.domain.deployment import (
    ConditionType,
    Deployment,
    DeploymentSpec,
    Failure,
    Handle,
    Phase,
    Status,
    Truth,
)
from moorage.domain.model import HubModel, ModelProfile
from moorage.domain.observation import (
    Observation,
    Replica,
    ReplicaState,
    Trouble,
    WorkerReport,
    WorkerState,
)
from moorage.domain.steps import (
    Abandon,
    Applied,
    Apply,
    Begin,
    Broken,
    Create,
    Created,
    Enter,
    GiveUp,
    Halt,
    Halted,
    Later,
    Look,
    NotApplied,
    Outcome,
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
    Seen,
    Step,
    Validate,
    Vanished,
    Wait,
    WakeUp,
    Woken,
)
from moorage.domain.transition import advance

START = datetime(2026, 11, 21, 9, tzinfo=UTC)
PATIENCE = Patience(ready_timeout=60.0, loading_look=5.0, ready_look=30.0)
EFFECTS = (Validate, Place, Create, Look, Remove, Apply, Halt, WakeUp)
TERMINAL = (Phase.DELETED, Phase.FAILED)


def offer(name: str) -> Offer:
    return Offer(
        name, "p", None, 0, 10**10, 10**10, 0.5, "test", "2026-11-21", availability=Availability.HIGH
    )


RUNGS = tuple(Rung(offer(n), "onnx", Estimate(1, 1.0, ())) for n in ("a", "b", "c"))
PROFILE = ModelProfile("acme/m", "0" * 40, ())
ANSWERS = Observation((Replica("0", ReplicaState.READY, "http://127.0.0.1:1"),))
LOADS = Observation((Replica("0", ReplicaState.STARTING),))
SLEEPS = Observation((), asleep=True)


def deployment(phase: Phase = Phase.VALIDATING, **status: object) -> Deployment:
    return Deployment(
        id="dep_" + "a" * 26,
        organization_id="org",
        name="m",
        spec=DeploymentSpec(HubModel("acme/m"), capacity_deadline_seconds=100.0),
        status=replace(Status(phase, START, START), **status),  # type: ignore[arg-type]  # by name
        created_at=START,
        created_by="usr",
    )


def next_step(d: Deployment, now: datetime = START, seen: Observation | Vanished | None = None) -> Step:
    return decide(desired_of(d, PATIENCE), Observed(d.status, seen), now)


def through(d: Deployment, *outcomes: Step | Outcome, now: datetime = START) -> Deployment:
    for outcome in outcomes:
        d = advance(d, outcome, now).deployment
    return d


def placed() -> Deployment:
    return through(deployment(), Profiled(PROFILE), Placed(Placement(RUNGS, ())))


def loading() -> Deployment:
    d = through(placed(), Begin(RUNGS[0]))
    assert d.status.attempt is not None
    return through(d, Created(Handle("p", d.status.attempt.name)))


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


# -- stopped, started, changed, asleep ------------------------------------------------------------------

WISHES = ("nothing",) * 12 + ("stop", "start", "change", "wake")


def wanted_otherwise(d: Deployment, wish: str, now: datetime) -> Deployment:
    """The deployment after its owner wished that, as the services write it."""
    match wish:
        case "stop":
            return replace(d, spec=replace(d.spec, stopped=True))
        case "start" if d.spec.stopped:
            return replace(d, spec=replace(d.spec, stopped=False), generation=d.generation + 1)
        case "change":
            return replace(d, generation=d.generation + 1)
        case "wake":
            return replace(d, wake_at=now)
    return d


def ready() -> Deployment:
    return through(loading(), Report(ANSWERS))


def test_a_stop_where_the_endpoint_can_stay_and_a_start_there() -> None:
    d = wanted_otherwise(ready(), "stop", START)
    assert next_step(d) == Enter(Phase.STOPPING)
    d = through(d, Enter(Phase.STOPPING))
    assert d.status.targets == (), "nothing is sent there any more"
    assert isinstance(next_step(d), Halt)
    d = through(d, Halted())
    assert d.phase is Phase.STOPPED
    assert d.status.meter.per_hour == 0.0
    assert isinstance(next_step(d), Rest)
    d = wanted_otherwise(d, "start", START)
    assert isinstance(next_step(d), Apply)
    assert d.status.attempt is not None
    d = through(d, Applied(Handle("p", d.status.attempt.name), d.generation))
    assert d.phase is Phase.LOADING_MODEL
    d = through(d, Report(ANSWERS))
    assert d.phase is Phase.READY


def test_a_stop_where_it_cannot_and_a_start_that_places_anew() -> None:
    later = START + timedelta(days=9)
    d = through(wanted_otherwise(ready(), "stop", START), Enter(Phase.STOPPING), Removed())
    assert next_step(d) == Enter(Phase.STOPPED)
    d = wanted_otherwise(through(d, Enter(Phase.STOPPED)), "start", later)
    assert next_step(d, later) == Enter(Phase.SELECTING_GPU)
    d = through(d, Enter(Phase.SELECTING_GPU), now=later)
    assert isinstance(next_step(d, later), Place), "not: out of time"


@pytest.mark.parametrize("d", [deployment(), placed(), loading(), ready()], ids=lambda d: d.phase)
def test_a_stop_comes_whenever_it_is_wanted_and_leaves_nothing_unnamed(d: Deployment) -> None:
    d = through(wanted_otherwise(d, "stop", START), Enter(Phase.STOPPING))
    step = next_step(d)
    if d.status.attempt is None:
        assert step == Enter(Phase.STOPPED)
    else:
        assert isinstance(step, Halt)


def test_an_intent_to_create_is_removed_by_a_stop() -> None:
    d = through(placed(), Begin(RUNGS[0]))
    d = through(wanted_otherwise(d, "stop", START), Enter(Phase.STOPPING))
    assert isinstance(next_step(d), Remove)


def test_a_change_is_applied_in_place_and_told_when_all_run_it() -> None:
    d = wanted_otherwise(ready(), "change", START)
    step = next_step(d)
    assert isinstance(step, Apply)
    d = through(d, Applied(Handle("p", step.attempt.name), 2))
    assert d.phase is Phase.UPDATING
    assert d.status.targets, "the old replicas serve on"
    rolling = replace(ANSWERS, updating=True)
    assert isinstance(next_step(d, seen=rolling), Wait)
    change = advance(d, Report(ANSWERS), START)
    assert change.deployment.phase is Phase.READY
    assert [fact.type for fact in change.facts] == ["deployment.updated"]


def test_an_update_that_is_stuck_says_why_and_what_ran_before_serves_on() -> None:
    d = wanted_otherwise(ready(), "change", START)
    assert d.status.attempt is not None
    d = through(d, Applied(Handle("p", d.status.attempt.name), 2))
    stuck = replace(ANSWERS, updating=True, trouble=Trouble.REJECTED, message="no such image")
    step = next_step(d, seen=stuck)
    assert step == Report(stuck)
    d = through(d, step)
    assert d.phase is Phase.UPDATING
    assert d.status.targets
    told = {c.type: c for c in d.status.conditions}[ConditionType.PROGRESSING]
    assert (told.status, told.message) == (Truth.FALSE, "no such image")
    assert isinstance(next_step(d, seen=stuck), Wait), "it is stored once"


def test_a_change_that_the_provider_refuses_is_told_and_not_tried_again() -> None:
    d = wanted_otherwise(ready(), "change", START)
    change = advance(d, NotApplied(2, "quota", "ask for more"), START)
    assert change.deployment.phase is Phase.READY
    assert [fact.type for fact in change.facts] == ["deployment.update_refused"]
    assert isinstance(next_step(change.deployment), Look)


def test_a_start_that_is_refused_is_tried_again_later_and_told_once() -> None:
    d = through(wanted_otherwise(ready(), "stop", START), Enter(Phase.STOPPING), Halted())
    d = wanted_otherwise(d, "start", START)
    refused = NotApplied(d.generation, "exceeded quota")
    change = advance(d, refused, START)
    assert [fact.type for fact in change.facts] == ["deployment.start_refused"]
    assert isinstance(next_step(change.deployment), Wait), "not at once, and not for ever"
    later = START + timedelta(minutes=2)
    assert isinstance(next_step(change.deployment, later), Apply)
    assert advance(change.deployment, refused, later).facts == ()


def test_what_was_stopped_before_it_was_validated_begins_at_the_beginning() -> None:
    d = through(wanted_otherwise(deployment(), "stop", START), Enter(Phase.STOPPING), Enter(Phase.STOPPED))
    assert next_step(wanted_otherwise(d, "start", START)) == Enter(Phase.VALIDATING)


def test_a_bad_change_takes_down_neither_what_there_is_nor_its_volumes() -> None:
    d = wanted_otherwise(ready(), "change", START)
    assert d.status.attempt is not None
    d = through(d, Applied(Handle("p", d.status.attempt.name), 2))
    broken = Observation((), trouble=Trouble.REJECTED, message="no such image")
    d = through(d, next_step(d, seen=broken))
    assert d.phase is Phase.UPDATING
    assert isinstance(next_step(d, START + timedelta(days=1), broken), Wait)
    d = wanted_otherwise(d, "change", START)
    assert isinstance(next_step(d), Apply), "another change takes its place"


def test_what_has_served_is_ready_again_with_fewer_replicas_than_were_wanted_since() -> None:
    d = ready()
    d = replace(d, spec=replace(d.spec, min_replicas=5, max_replicas=5))
    d = through(d, Report(LOADS))
    assert d.phase is Phase.LOADING_MODEL
    d = through(d, Report(ANSWERS))
    assert d.phase is Phase.READY


def test_one_that_sleeps_on_is_told_again_and_then_left_asleep() -> None:
    later = START + timedelta(hours=1)
    d = through(ready(), Report(SLEEPS), now=later)
    d = through(wanted_otherwise(d, "wake", later), Woken(), now=later)
    assert isinstance(next_step(d, later + timedelta(seconds=20), SLEEPS), WakeUp)
    assert next_step(d, later + timedelta(minutes=20), SLEEPS) == Enter(Phase.HIBERNATED)


def test_drift_that_comes_back_keeps_nothing_from_being_ready() -> None:
    drift = replace(ANSWERS, drift="somebody changes it again and again")
    d = through(loading(), next_step(loading(), seen=drift))
    assert d.phase is Phase.READY
    assert isinstance(next_step(d, seen=drift), Restore)


def test_what_its_autoscaler_let_sleep_is_woken_by_whoever_asks() -> None:
    later = START + timedelta(hours=1)
    d = ready()
    assert next_step(d, later, SLEEPS) == Report(SLEEPS)
    d = through(d, Report(SLEEPS), now=later)
    assert d.phase is Phase.HIBERNATED
    assert isinstance(next_step(d, later, SLEEPS), Wait)
    assert isinstance(next_step(replace(d, wake_at=START), later), Look), "that was before it slept"
    d = wanted_otherwise(d, "wake", later)
    assert isinstance(next_step(d, later), WakeUp)
    d = through(d, Woken(), now=later)
    assert d.phase is Phase.WAKING
    soon = later + timedelta(seconds=2)
    assert isinstance(next_step(d, soon, SLEEPS), Wait), "it may not have noticed yet"
    d = through(d, Report(ANSWERS), now=soon)
    assert d.phase is Phase.READY


def test_what_sleeps_before_it_ever_answered_is_woken_to_prove_itself() -> None:
    assert isinstance(next_step(loading(), seen=SLEEPS), WakeUp)


# -- a hostile world ------------------------------------------------------------------------------------


@dataclass
class World:
    """Endpoints by name at a provider that answers as `draw` says; what the property looks at."""

    draw: st.DataObject
    endpoints: set[str] = field(default_factory=set)
    seen: Observation | Vanished | None = None
    generation: int = 1

    def perform(self, step: Step) -> Outcome:
        match step:
            case Validate():
                return self._one_of(
                    Profiled(PROFILE), Later("hub down"), Broken(Failure("model_gated", "gated"))
                )
            case Place():
                ladder = self.draw.draw(st.sampled_from([RUNGS[:n] for n in range(4)]))
                if not ladder:
                    return Broken(Failure("does_not_fit", "no"))
                return self._one_of(Placed(Placement(ladder, ())), Later("silent", 3.0))
            case Create(attempt):
                lost = self.draw.draw(st.booleans())
                outcome = self._one_of(
                    Created(Handle("p", attempt.name)), Refused("full"), Later("x"), Broken(Failure("r", "r"))
                )
                if isinstance(outcome, Created) or lost:  # it acted, and the answer was lost
                    self.endpoints.add(attempt.name)
                return outcome
            case Look(attempt):
                if attempt.name not in self.endpoints:
                    return Vanished()
                if self.draw.draw(st.integers(0, 9)) == 0:
                    self.endpoints.discard(attempt.name)
                    return Vanished()
                crash = Observation((), trouble=Trouble.CRASH_LOOP)
                full = Observation((), trouble=Trouble.NO_CAPACITY)
                rolls = replace(ANSWERS, updating=True)
                return self._one_of(
                    *(Seen(what) for what in (ANSWERS, LOADS, SLEEPS, rolls, crash, full)), Later("timeout")
                )
            case Apply() | Halt() | WakeUp():
                return self._change(step)
            case Remove(attempt):
                outcome = self._one_of(Removed(), Later("still there", 1.0))
                if isinstance(outcome, Removed):
                    self.endpoints.discard(attempt.name)
                return outcome
        raise AssertionError(step)

    def _change(self, step: Apply | Halt | WakeUp) -> Outcome:
        if step.attempt.name not in self.endpoints:
            return Removed() if isinstance(step, Halt) else Vanished()
        match step:
            case Apply():
                handle = Handle("p", step.attempt.name)
                newest = self.generation
                return self._one_of(Applied(handle, newest), NotApplied(newest, "no"), Later("silent"))
            case Halt():
                return self._one_of(Halted(), Later("still there", 1.0))
            case WakeUp():
                return self._one_of(Woken(), Later("silent"))

    def _one_of(self, *outcomes: Outcome) -> Outcome:
        return self.draw.draw(st.sampled_from(outcomes))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_there_is_always_a_next_step_or_the_end_and_never_two_endpoints(data: st.DataObject) -> None:
    world, d, now = World(data), deployment(), START
    delete_at = data.draw(st.one_of(st.none(), st.integers(0, 60)))
    for turn in range(120):
        if turn == delete_at:
            d = replace(d, deleted_at=now)
        d = wanted_otherwise(d, data.draw(st.sampled_from(WISHES)), now)
        world.generation = d.generation
        step = decide(desired_of(d, PATIENCE), Observed(d.status, world.seen), now)
        if isinstance(step, Rest):
            break
        if isinstance(step, Wait):
            assert step.until > now, "a wait moves time on"
            now, world.seen = step.until, None
            continue
        did = world.perform(step) if isinstance(step, EFFECTS) else step
        if isinstance(did, Seen | Vanished):
            world.seen = did.observation if isinstance(did, Seen) else did
            continue
        change = advance(d, did, now, data.draw(st.floats(0, 0.99)))
        assert change.deployment.due_at is not None
        d, world.seen = change.deployment, None if isinstance(did, Later) else world.seen
        if not isinstance(did, Report):
            world.seen = None
        assert len(world.endpoints) <= 1, "never two worker sets"
        attempt = d.status.attempt
        assert world.endpoints <= ({attempt.name} if attempt else set()), "what exists is always named"
    if d.status.phase is Phase.STOPPED:
        assert d.status.targets == ()
    if d.status.phase in TERMINAL:
        assert not world.endpoints, "nothing is left that bills"
        assert d.status.attempt is None


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_deletion_ends_in_deleted_once_the_provider_lets_go(data: st.DataObject) -> None:
    world, d, now = World(data), deployment(), START
    for _ in range(data.draw(st.integers(0, 40))):  # anywhere in its life
        step = decide(desired_of(d, PATIENCE), Observed(d.status, None), now)
        did = world.perform(step) if isinstance(step, EFFECTS) else step
        if isinstance(did, Seen):
            did = Report(did.observation)
        if isinstance(did, Vanished | Rest):
            break
        d = advance(d, did, now).deployment
    d = replace(d, deleted_at=now)
    for _ in range(6):
        step = next_step(d, now)
        if isinstance(step, Remove):
            world.endpoints.discard(step.attempt.name)
            d = through(d, Removed(), now=now)
        elif isinstance(step, Wait):
            now = step.until
        elif not isinstance(step, Rest):
            d = through(d, step, now=now)
    assert d.phase is Phase.DELETED
    assert not world.endpoints
