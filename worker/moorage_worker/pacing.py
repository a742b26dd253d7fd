"""How often somebody is told the same thing: progress moves faster than anybody wants to read it."""

from __future__ import annotations


class Pace:
    """Lets each new subject through at once, and word on the same one every `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last: tuple[object, float] | None = None

    def due(self, subject: object, now: float) -> bool:
        """Whether to tell now; a yes counts as told. `now` is in seconds, of a clock that never goes back."""
        if self._last is not None and self._last[0] == subject and now - self._last[1] < self._seconds:
            return False
        self._last = (subject, now)
        return True
