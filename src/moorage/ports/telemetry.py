"""What the core tells of its own work to whoever watches it: counts and times, and traces.

Told at few points, each where all of a kind comes past. What is told decides nothing, and telling it neither
waits nor fails. Without a watcher it costs a call that does nothing.
"""

from __future__ import annotations

from typing import Protocol


class Meters(Protocol):
    """Counts, with the time that each took in seconds. The words that go with them are few by nature (routes,
    providers, effects, classes of errors), never an id or a name that a user chose."""

    def requested(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request of the control plane was answered; `seconds` until the head of the answer."""

    def performed(self, effect: str, outcome: str, seconds: float) -> None:
        """The engine did something at a provider or the Hub."""

    def called(self, provider: str, operation: str, outcome: str, seconds: float) -> None:
        """A provider answered a call: `ok`, or the class of its error."""

    def stored(self, operation: str, outcome: str, seconds: float) -> None:
        """The store answered: `ok`, or the class of its error."""

    def attempted(self, result: str, seconds: float) -> None:
        """A webhook message was sent, or could not be."""

    def ran(self, state: str) -> None:
        """A job was carried out, and is in this state now."""

    def entered(self, phase: str) -> None:
        """A deployment came into a phase."""

    def failed(self, task: str) -> None:
        """A background task died of a bug, and is begun again."""


class Span(Protocol):
    """Something that takes time, within a trace. One that is never ended is not told."""

    @property
    def traceparent(self) -> str | None:
        """The W3C header for requests that are made because of it; None when nobody traces."""

    def event(self, name: str, **attributes: str) -> None: ...

    def end(self, outcome: str, *, failed: bool = False) -> None: ...


class Traces(Protocol):
    """One trace for each subject, which is a deployment. Its id follows from the subject's, so that every
    process, and every process after a restart, writes to the same one without keeping anything."""

    def begin(self, subject_id: str, name: str, **attributes: str) -> Span:
        """A span below the subject's root."""

    def accepted(self, subject_id: str, name: str, seconds: float) -> None:
        """The root: the call that made the subject, which is just over."""

    def caused_by(self, traceparent: str) -> None:
        """Whoever called has a trace too: roots that this task makes link to it."""


class NoMeters:
    """Nobody counts."""

    def requested(self, route: str, method: str, status: int, seconds: float) -> None: ...

    def performed(self, effect: str, outcome: str, seconds: float) -> None: ...

    def called(self, provider: str, operation: str, outcome: str, seconds: float) -> None: ...

    def stored(self, operation: str, outcome: str, seconds: float) -> None: ...

    def attempted(self, result: str, seconds: float) -> None: ...

    def ran(self, state: str) -> None: ...

    def entered(self, phase: str) -> None: ...

    def failed(self, task: str) -> None: ...


class NoSpan:
    """Nobody traces."""

    traceparent: str | None = None

    def event(self, name: str, **attributes: str) -> None: ...

    def end(self, outcome: str, *, failed: bool = False) -> None: ...


class NoTraces:
    """Nobody traces."""

    def begin(self, subject_id: str, name: str, **attributes: str) -> Span:
        return NO_SPAN

    def accepted(self, subject_id: str, name: str, seconds: float) -> None: ...

    def caused_by(self, traceparent: str) -> None: ...


NO_METERS: Meters = NoMeters()
NO_SPAN: Span = NoSpan()
NO_TRACES: Traces = NoTraces()
