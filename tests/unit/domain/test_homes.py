"""A deployment that one machine alone can look after, seen from another."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from moorage.domain.decide import Observed, decide, desired_of
from moorage.domain.deployment import ConditionType, Deployment, Failure, Phase, Truth
from moorage.domain.homes import HOME_AWAY
from moorage.domain.steps import (
    Abandon,
    Away,
    Begin,
    Create,
    Enter,
    Later,
    Look,
    Place,
    Remove,
    Removed,
    Report,
    Step,
    Vanished,
    Wait,
)
from moorage.domain.transition import advance

from .lives import ANSWERS, PATIENCE, RUNGS, START, loading, placed, through


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def at_home(deployment: Deployment, machine: str = "mill") -> Deployment:
    attempt = deployment.status.attempt
    assert attempt is not None
    rung = replace(attempt.rung, offer=replace(attempt.rung.offer, home=machine))
    return replace(deployment, status=replace(deployment.status, attempt=replace(attempt, rung=rung)))


def serving() -> Deployment:
    return at_home(through(loading(), Report(ANSWERS)))


def step(
    d: Deployment, here: str | None, seconds: float = 0, seen: object = None, *, deleted: bool = False
) -> Step:
    if deleted:
        d = replace(d, deleted_at=START)
    observed = Observed(d.status, seen, None, here)  # type: ignore[arg-type]  # what the caller saw
    return decide(desired_of(d, PATIENCE), observed, after(seconds))


@pytest.mark.parametrize("here", ["weir", None])
def test_elsewhere_nothing_is_done(here: str | None) -> None:
    begun = at_home(through(placed(), Begin(RUNGS[0])))
    assert step(begun, here) == Away("mill"), "nobody knows whether it was created"
    assert step(begun, here, 10_000) == Away("mill"), "not even a deadline is held against it"
    assert step(at_home(loading()), here, 10_000) == Away("mill")
    assert step(serving(), here) == Away("mill")
    gone = through(serving(), Abandon(Failure("x", "y")))
    assert step(gone, here) == Away("mill"), "what is to be removed can be removed there alone"


def test_at_home_all_is_as_ever() -> None:
    assert isinstance(step(at_home(through(placed(), Begin(RUNGS[0]))), "mill"), Create)
    assert isinstance(step(serving(), "mill"), Look)
    assert isinstance(step(loading(), "weir"), Look), "what has no home is at home everywhere"


def test_a_deletion_is_said_and_waits() -> None:
    asked = replace(serving(), deleted_at=START)
    assert step(asked, "weir", deleted=True) == Enter(Phase.DELETING)
    deleting = through(asked, Enter(Phase.DELETING), Away("mill"))
    assert step(deleting, "weir", 600, deleted=True) == Away("mill")
    assert deleting.phase is Phase.DELETING
    assert deleting.status.attempt is not None
    assert isinstance(step(deleting, "mill", deleted=True), Remove)
    assert told(through(deleting, Removed())).reason == "Recovered"


def told(d: Deployment):  # type: ignore[no-untyped-def]  # a condition, which must be there
    return next(c for c in d.status.conditions if c.type is ConditionType.PROGRESSING)


def test_its_machine_s_silence_is_told_once_and_changes_nothing() -> None:
    before = serving()
    change = advance(before, Away("mill"), START)
    assert [fact.type for fact in change.facts] == ["deployment.home_away"]
    assert "mill" in change.facts[0].message
    assert change.rests
    d = change.deployment
    assert replace(d.status, conditions=()) == replace(before.status, conditions=())
    assert (told(d).status, told(d).reason) == (Truth.FALSE, HOME_AWAY)
    assert advance(d, Away("mill"), after(60)).facts == ()


def test_it_is_looked_for_less_and_less_often() -> None:
    d, now, waits = serving(), START, []
    for _ in range(7):
        d = advance(d, Away("mill"), now).deployment
        assert d.due_at is not None
        waits.append((d.due_at - now).total_seconds())
        now = d.due_at + timedelta(seconds=60)  # as soon as others may claim it
    assert waits == [0, 60, 180, 300, 300, 300, 300]


def test_home_again_it_is_looked_at_and_said() -> None:
    away = through(serving(), Away("mill"))
    assert isinstance(step(away, "mill"), Look)
    assert step(away, "mill", seen=ANSWERS) == Report(ANSWERS)
    back = through(away, Report(ANSWERS))
    assert told(back).reason == "Recovered"
    assert isinstance(step(back, "mill", seen=ANSWERS), Wait)
    vanished = step(away, "mill", seen=Vanished())
    assert isinstance(vanished, Abandon), "home again, it may be concluded that it is gone"


def test_passing_trouble_of_before_does_not_hide_it() -> None:
    troubled = through(serving(), Later("busy", 1000.0))
    assert step(troubled, "weir") == Away("mill")


def test_a_ladder_that_another_machine_ranked_is_ranked_anew() -> None:
    d = placed()
    rung = replace(RUNGS[0], offer=replace(RUNGS[0].offer, home="mill"))
    d = replace(d, status=replace(d.status, ladder=(rung, RUNGS[1])))
    assert step(d, "weir") == Place()
    assert step(d, "mill") == Begin(rung)
