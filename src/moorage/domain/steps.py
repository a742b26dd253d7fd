"""The vocabulary between deciding and doing: steps that rules choose, outcomes that effects bring back.

A step is either an effect, which the engine performs at a provider or the Hub and which has an outcome, or a
pure change of status. Nothing here does anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from moorage.domain.compute import Placement, RefusedOffer, Rung
from moorage.domain.deployment import Attempt, Failure, Handle, Phase
from moorage.domain.model import ModelProfile
from moorage.domain.observation import Observation

# -- steps: pure --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing will ever have to be done, unless the owner asks for something."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`; a signal may come sooner."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Enter:
    phase: Phase


@dataclass(frozen=True, slots=True)
class Begin:
    """Store the intent to create `rung`, before anything is created."""

    rung: Rung


@dataclass(frozen=True, slots=True)
class Report:
    """Store what was seen, and the phase that follows from it."""

    seen: Observation


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give up the attempt: for lack of capacity (then the next rung) or for good (then `failed`)."""

    why: RefusedOffer | Failure


@dataclass(frozen=True, slots=True)
class GiveUp:
    failure: Failure


@dataclass(frozen=True, slots=True)
class Away:
    """The machine that alone can look after it is silent: leave everything as it is."""

    home: str


# -- steps: effects -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Validate:
    """Read the model's profile."""


@dataclass(frozen=True, slots=True)
class Place:
    """Collect offers and rank them."""


@dataclass(frozen=True, slots=True)
class Create:
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Look:
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete the attempt's endpoint and confirm that it is gone."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Apply:
    """Give the provider the spec of today for what runs: changed, or started after a stop."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Halt:
    """Let no replica run, and keep the rest where the provider can; remove the endpoint where it cannot."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Have the provider start a replica of what its autoscaler let sleep."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Restore:
    """Apply the plan again, because somebody else changed what runs: `drift` says what, in words."""

    attempt: Attempt
    drift: str


Step = (
    Rest
    | Wait
    | Enter
    | Begin
    | Report
    | Abandon
    | GiveUp
    | Away
    | Validate
    | Place
    | Create
    | Look
    | Remove
    | Restore
    | Apply
    | Halt
    | WakeUp
)

# -- outcomes -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Profiled:
    profile: ModelProfile | None  # None: a container image, of which nothing can be read


@dataclass(frozen=True, slots=True)
class Placed:
    placement: Placement


@dataclass(frozen=True, slots=True)
class Created:
    handle: Handle


@dataclass(frozen=True, slots=True)
class Seen:
    observation: Observation


@dataclass(frozen=True, slots=True)
class Vanished:
    """The provider says that what we created does not exist."""


@dataclass(frozen=True, slots=True)
class Removed:
    pass


@dataclass(frozen=True, slots=True)
class Restored:
    drift: str


@dataclass(frozen=True, slots=True)
class Applied:
    """The provider has taken the spec of that generation."""

    handle: Handle
    generation: int


@dataclass(frozen=True, slots=True)
class NotApplied:
    """The provider will not take the spec of that generation; what ran before still does."""

    generation: int
    reason: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Halted:
    """No replica is left; the endpoint is."""


@dataclass(frozen=True, slots=True)
class Woken:
    """It was told to wake."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The offer cannot be had; with `whole_provider`, none of this provider's can."""

    reason: str
    advice: str | None = None
    whole_provider: bool = False


@dataclass(frozen=True, slots=True)
class Later:
    """Passing trouble: the same step again, not before `after` seconds (None: the usual backoff)."""

    why: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """It will never work as asked."""

    failure: Failure


Outcome = (
    Profiled
    | Placed
    | Created
    | Seen
    | Vanished
    | Removed
    | Restored
    | Applied
    | NotApplied
    | Halted
    | Woken
    | Refused
    | Later
    | Broken
)
