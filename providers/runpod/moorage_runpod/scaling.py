"""How an endpoint scales: the owner's wishes over the operator's defaults, within RunPod's rules. Pure.

RunPod refuses some combinations and quietly changes others, so every rule is checked here first and told with
the field that the owner used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moorage.domain.compute import EndpointType, ScalerType, Serverless
from moorage.errors import FieldError, Rejected
from moorage_runpod.settings import EXECUTION_TIMEOUTS, IDLE_TIMEOUTS, RunPodSettings

QUEUE_DELAY_SECONDS = 4.0  # RunPod's own default for both scalers
REQUEST_COUNT = 4
LEAST_QUEUE_DELAY = 0.5


@dataclass(frozen=True, slots=True)
class Scaling:
    """`scaling` is in RunPod's form. `idle_timeout` is None where RunPod does not take one."""

    balanced: bool
    workers_min: int
    workers_max: int
    idle_timeout: int | None
    scaling: Mapping[str, object]
    timeout_ms: int
    flashboot: str

    @property
    def kind(self) -> str:
        return "LOAD_BALANCER" if self.balanced else "QUEUE"

    def workers(self, most: int | None = None) -> dict[str, int]:
        """In RunPod's form; `most` takes the place of `workers_max`."""
        body = {"min": self.workers_min, "max": self.workers_max if most is None else most}
        if self.idle_timeout is not None:
            body["idleTimeout"] = self.idle_timeout
        return body


def scaling_of(wish: Serverless, replicas: int, settings: RunPodSettings) -> Scaling:
    """Raises Rejected with every field at fault."""
    errors = list(_against(wish))
    if errors:
        raise Rejected("; ".join(e.message for e in errors), fields=errors)
    balanced = wish.endpoint_type is EndpointType.LOAD_BALANCER
    scaler = _scaler(wish, balanced)
    least = wish.workers_min
    if least is None:
        least = replicas if replicas > 1 else settings.workers_min
    most = settings.workers_max if wish.workers_max is None else wish.workers_max
    idle = None
    if balanced or scaler["type"] == "QUEUE_DELAY":
        idle = settings.idle_timeout if wish.idle_timeout is None else wish.idle_timeout
    seconds = wish.execution_timeout or settings.execution_timeout
    return Scaling(
        balanced=balanced,
        workers_min=least,
        workers_max=max(1, most, least, replicas),
        idle_timeout=idle,
        scaling=scaler,
        timeout_ms=round(seconds * 1000),
        flashboot="OFF" if wish.flashboot is False else "FLASHBOOT",
    )


def _scaler(wish: Serverless, balanced: bool) -> dict[str, object]:
    kind = wish.scaler_type or (ScalerType.REQUEST_COUNT if balanced else ScalerType.QUEUE_DELAY)
    if kind is ScalerType.REQUEST_COUNT:
        return {"type": "REQUEST_COUNT", "requestCount": int(wish.scaler_value or REQUEST_COUNT)}
    return {"type": "QUEUE_DELAY", "queueDelay": wish.scaler_value or QUEUE_DELAY_SECONDS}


def _against(wish: Serverless) -> Iterator[FieldError]:
    balanced = wish.endpoint_type is EndpointType.LOAD_BALANCER
    counts = wish.scaler_type is ScalerType.REQUEST_COUNT or (balanced and wish.scaler_type is None)
    if balanced and wish.scaler_type is ScalerType.QUEUE_DELAY:
        yield FieldError(
            "scaler_type", "needs_queue", "a load_balancer endpoint has no queue: scale it by request_count"
        )
    if counts and not balanced and wish.idle_timeout is not None:
        yield FieldError(
            "idle_timeout",
            "not_with_request_count",
            "RunPod takes no idle_timeout for a queue that scales by request_count: drop one of them",
        )
    yield from _against_value(wish.scaler_value, counts)
    yield from _outside("idle_timeout", wish.idle_timeout, IDLE_TIMEOUTS)
    yield from _outside("execution_timeout", wish.execution_timeout, EXECUTION_TIMEOUTS)
    if wish.workers_min is not None and wish.workers_max is not None and wish.workers_max < wish.workers_min:
        yield FieldError("workers_max", "below_minimum", "workers_max must be at least workers_min")


def _against_value(value: float | None, counts: bool) -> Iterator[FieldError]:
    if value is None:
        return
    if counts and (value < 1 or value != int(value)):
        yield FieldError(
            "scaler_value", "whole_number", "scaler_value must be a whole number of requests from 1 on"
        )
    if not counts and value < LEAST_QUEUE_DELAY:
        yield FieldError(
            "scaler_value", "too_small", f"scaler_value must be at least {LEAST_QUEUE_DELAY} s of delay"
        )


def _outside(name: str, value: float | None, bounds: tuple[int, int]) -> Iterator[FieldError]:
    least, most = bounds
    if value is not None and not least <= value <= most:
        yield FieldError(name, "out_of_range", f"{name} must be from {least} to {most} s")
