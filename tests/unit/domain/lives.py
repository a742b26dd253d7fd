"""Deployments at points of their lives, and what their owners may wish there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from moorage.domain.compute import Availability, Estimate, Offer, Placement, Rung
from moorage.domain.decide import Observed, Patience, decide, desired_of
from moorage.domain.deployment import (
    Deployment,
    DeploymentSpec,
    Handle,
    Phase,
    Status,
)
from moorage.domain.model import HubModel, ModelProfile
from moorage.domain.observation import (
    Observation,
    Replica,
    ReplicaState,
)
from moorage.domain.steps import (
    Begin,
    Created,
    Outcome,
    Placed,
    Profiled,
    Report,
    Step,
    Vanished,
)
from moorage.domain.transition import advance

START = datetime(2026, 11, 21, 9, tzinfo=UTC)
PATIENCE = Patience(ready_timeout=60.0, loading_look=5.0, ready_look=30.0)


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
