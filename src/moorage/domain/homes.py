"""Deployments that one machine alone can look after, seen from another machine.

What runs there cannot be looked at, changed or removed from here. So nothing is concluded from its machine's
silence: it is told, and the deployment stays as it was until somebody starts Moorage there.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from moorage.domain.deployment import Condition, ConditionType, Status

HOME_AWAY = "HomeAway"  # reason of the condition `Progressing`
LOOK_AGAIN_AT_MOST = timedelta(minutes=5)


def elsewhere(status: Status, here: str | None) -> str | None:
    """The machine that alone can look after it, where that is another one than `here`."""
    home = None if status.attempt is None else status.attempt.rung.offer.home
    return None if home == here else home


def told_away(status: Status) -> Condition | None:
    """What was told of its machine's silence, and not taken back since."""
    return next(
        (c for c in status.conditions if c.type is ConditionType.PROGRESSING and c.reason == HOME_AWAY), None
    )


def away_message(home: str) -> str:
    return (
        f"The machine {home}, which alone can look after it, has not been heard of for a minute or more. "
        f"Start Moorage there; or, if that machine is gone for good, start it on another one with "
        f"MOORAGE_MACHINE={home}."
    )


def look_again(away_since: datetime, now: datetime) -> datetime:
    """Waits as long as it has been away, so that a machine that is gone for long costs little."""
    return now + min(now - away_since, LOOK_AGAIN_AT_MOST)
