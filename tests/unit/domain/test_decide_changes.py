"""The rules for what is stopped, started, changed, asleep."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from moorage.domain.deployment import (
    ConditionType,
    Deployment,
    Handle,
    Phase,
    Truth,
)
from moorage.domain.observation import (
    Observation,
    Trouble,
)
from moorage.domain.steps import (
    Applied,
    Apply,
    Begin,
    Enter,
    Halt,
    Halted,
    Look,
    NotApplied,
    Place,
    Remove,
    Removed,
    Report,
    Rest,
    Restore,
    Wait,
    WakeUp,
    Woken,
)
from moorage.domain.transition import advance

from .lives import (
    ANSWERS,
    LOADS,
    RUNGS,
    SLEEPS,
    START,
    deployment,
    loading,
    next_step,
    placed,
    ready,
    through,
    wanted_otherwise,
)


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
