"""The rules against a hostile world: whatever outcomes come, a deployment always has a next step or is over,
nothing is created twice, and nothing is left behind."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.domain.compute import Placement
from moorage.domain.decide import Observed, decide, desired_of
from moorage.domain.deployment import (
    Failure,
    Handle,
    Phase,
)
from moorage.domain.observation import (
    Observation,
    Trouble,
)
from moorage.domain.steps import (
    Applied,
    Apply,
    Broken,
    Create,
    Created,
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
    Seen,
    Step,
    Validate,
    Vanished,
    Wait,
    WakeUp,
    Woken,
)
from moorage.domain.transition import advance

from .lives import (
    ANSWERS,
    LOADS,
    PATIENCE,
    PROFILE,
    RUNGS,
    SLEEPS,
    START,
    WISHES,
    deployment,
    next_step,
    through,
    wanted_otherwise,
)

EFFECTS = (Validate, Place, Create, Look, Remove, Apply, Halt, WakeUp)
TERMINAL = (Phase.DELETED, Phase.FAILED)


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
