"""What the engine tells of its work: each effect, each phase that a deployment came into, each webhook.

A look at what rests is done once a minute for as long as a deployment lives. It is counted, and gets no span:
months of them would bury the few that tell how the deployment came to be.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from moorage.domain.delivery import Answer, Delivery, DeliveryState
from moorage.domain.deployment import Deployment, Phase
from moorage.domain.steps import Broken, Later, Look, NotApplied, Outcome, Refused, Seen
from moorage.domain.transition import Change
from moorage.engine.effects import Effect
from moorage.ports.store import provider_of
from moorage.ports.telemetry import NO_METERS, NO_TRACES, Meters, Span, Traces

_RESTING = (Phase.READY, Phase.HIBERNATED, Phase.STOPPED)
_FAILURES = (Broken, Later, NotApplied, Refused)


class Recorder:
    """Hands out what is to be told when the work is over."""

    def __init__(self, meters: Meters = NO_METERS, traces: Traces = NO_TRACES) -> None:
        self._meters = meters
        self._traces = traces

    def effect(self, deployment: Deployment, effect: Effect) -> EffectRecord:
        """It begins now."""
        return EffectRecord(self._meters, self._traces, deployment, effect)

    def attempt(self, delivery: Delivery) -> AttemptRecord:
        """It is about to be sent."""
        return AttemptRecord(self._meters, self._traces, delivery)

    def write(self, deployment: Deployment) -> WriteRecord:
        """A change of this deployment is about to be stored."""
        return WriteRecord(self._meters, self._traces, deployment)


class EffectRecord:
    def __init__(self, meters: Meters, traces: Traces, deployment: Deployment, effect: Effect) -> None:
        self._meters = meters
        self._deployment = deployment
        self._effect = effect
        self._name = type(effect).__name__.lower()
        self._began = time.perf_counter()
        self._span = traces.begin(
            deployment.id,
            f"effect {self._name}",
            effect=self._name,
            provider=provider_of(deployment),
            phase=deployment.phase.value,
        )

    def over(self, outcome: Outcome) -> None:
        told = type(outcome).__name__.lower()
        self._meters.performed(self._name, told, time.perf_counter() - self._began)
        uneventful = isinstance(self._effect, Look) and isinstance(outcome, Seen)
        if not (uneventful and self._deployment.phase in _RESTING):
            self._span.end(told, failed=isinstance(outcome, _FAILURES))


class WriteRecord:
    def __init__(self, meters: Meters, traces: Traces, deployment: Deployment) -> None:
        self._meters = meters
        self._phase = deployment.phase
        self._span: Span = traces.begin(deployment.id, "change", phase=deployment.phase.value)

    def stored(self, changes: Sequence[Change]) -> None:
        """They are what is now. Only a new phase is worth a span."""
        entered = tuple(self._entered(changes))
        for before, phase in entered:
            self._meters.entered(phase.value)
            self._span.event("phase", before=before.value, phase=phase.value)
        if entered:
            self._span.end("stored", failed=entered[-1][1] is Phase.FAILED)

    def _entered(self, changes: Sequence[Change]) -> Iterator[tuple[Phase, Phase]]:
        before = self._phase
        for change in changes:
            phase = change.deployment.phase
            if phase is not before:
                yield before, phase
            before = phase


class AttemptRecord:
    def __init__(self, meters: Meters, traces: Traces, delivery: Delivery) -> None:
        self._meters = meters
        self._span = traces.begin(delivery.subject_id, "webhook", event=delivery.event_type)

    @property
    def headers(self) -> Mapping[str, str]:
        """For the message, beside those that are signed: a receiver that traces goes on with this trace."""
        traceparent = self._span.traceparent
        return {} if traceparent is None else {"traceparent": traceparent}

    def over(self, answer: Answer, after: Delivery) -> None:
        result = "failed" if after.state is DeliveryState.PENDING else after.state.value
        self._meters.attempted(result, answer.seconds)
        self._span.end(result, failed=after.state is not DeliveryState.DELIVERED)
