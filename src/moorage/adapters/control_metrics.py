"""What the control plane counts, for Prometheus: its names, its buckets, and the text that is scraped.

Each service has a registry of its own, so that several in one process (tests) do not count for each other.
Deployments are counted here by phase, never one by one; the gateway tells of each in lines of its own.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from moorage import __version__

Labels = tuple[str, ...]
Read = Callable[[], Mapping[Labels, float]]  # values by those of the labels

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
_SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

# One series more for each other one, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here

M = TypeVar("M", Counter, Histogram)


class _Children(Generic[M]):
    """The series of a metric by their labels' values: the library's own look-up takes a lock and a copy."""

    def __init__(self, parent: M) -> None:
        self._parent: M = parent
        self._known: dict[Labels, M] = {}

    def of(self, *values: str) -> M:
        child = self._known.get(values)
        if child is None:
            child = self._known[values] = self._parent.labels(*values) if values else self._parent
        return child


class _Asked(Collector):
    """A gauge that is read when it is scraped."""

    def __init__(self, name: str, meaning: str, labels: Labels, read: Read) -> None:
        self._name, self._meaning, self._labels, self._read = name, meaning, labels, read

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, value in self._read().items():
            family.add_metric(values, value)
        yield family


class ControlMetrics:
    """A `moorage.ports.telemetry.Meters`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="moorage", registry=self.registry)
        build = Gauge(
            "moorage_build_info",
            "Always 1; its labels say what runs.",
            ("version", "python"),
            registry=self.registry,
        )
        build.labels(__version__, platform.python_version()).set(1)
        self._requests = self._counted(
            "moorage_api_requests", "Requests to the control plane.", "route", "method", "status"
        )
        self._request_seconds = self._timed(
            "moorage_api_request_duration_seconds",
            "Seconds from the arrival of a request to the head of its answer.",
            _FAST,
            "route",
            "method",
        )
        self._effects = self._counted(
            "moorage_engine_effects", "What the engine did at providers and the Hub.", "effect", "outcome"
        )
        self._effect_seconds = self._timed(
            "moorage_engine_effect_duration_seconds", "Seconds that an effect took.", _SLOW, "effect"
        )
        self._calls = self._counted(
            "moorage_provider_calls",
            "Calls of providers; the outcome is `ok`, the class of the error, or `cancelled`.",
            *("provider", "operation", "outcome"),
        )
        self._call_seconds = self._timed(
            "moorage_provider_call_duration_seconds",
            "Seconds that a call of a provider took.",
            _SLOW,
            *("provider", "operation"),
        )
        self._operations = self._counted(
            "moorage_store_operations",
            "Reads and writes of the store; the outcome is `ok`, the class of the error, or `cancelled`.",
            *("operation", "outcome"),
        )
        self._operation_seconds = self._timed(
            "moorage_store_operation_duration_seconds",
            "Seconds that a read or write of the store took.",
            _FAST,
            "operation",
        )
        self._attempts = self._counted(
            "moorage_webhook_attempts", "Attempts at webhook messages, by what came of them.", "result"
        )
        self._attempt_seconds = self._timed(
            "moorage_webhook_attempt_duration_seconds", "Seconds that a receiver took to answer.", _SLOW
        )
        self._runs = self._counted(
            "moorage_job_runs", "Jobs that were carried out, by the state after.", "state"
        )
        self._entries = self._counted(
            "moorage_deployment_phase_entries", "Deployments that came into a phase.", "phase"
        )
        self._failures = self._counted(
            "moorage_task_failures", "Background tasks that died, and were begun again.", "task"
        )

    # -- what is told

    def requested(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.of(route, method, str(status)).inc()
        self._request_seconds.of(route, method).observe(seconds)

    def performed(self, effect: str, outcome: str, seconds: float) -> None:
        self._effects.of(effect, outcome).inc()
        self._effect_seconds.of(effect).observe(seconds)

    def called(self, provider: str, operation: str, outcome: str, seconds: float) -> None:
        self._calls.of(provider, operation, outcome).inc()
        self._call_seconds.of(provider, operation).observe(seconds)

    def stored(self, operation: str, outcome: str, seconds: float) -> None:
        self._operations.of(operation, outcome).inc()
        self._operation_seconds.of(operation).observe(seconds)

    def attempted(self, result: str, seconds: float) -> None:
        self._attempts.of(result).inc()
        self._attempt_seconds.of().observe(seconds)

    def ran(self, state: str) -> None:
        self._runs.of(state).inc()

    def entered(self, phase: str) -> None:
        self._entries.of(phase).inc()

    def failed(self, task: str) -> None:
        self._failures.of(task).inc()

    # -- what is asked for

    def gauge(self, name: str, meaning: str, labels: Labels, read: Read) -> None:
        """A value that is read when somebody asks for the metrics: it must be quick, and ask nobody."""
        self.registry.register(_Asked(name, meaning, labels, read))

    def exposition(self) -> bytes:
        """Text format 0.0.4."""
        return generate_latest(self.registry)

    def _counted(self, name: str, meaning: str, *labels: str) -> _Children[Counter]:
        return _Children(Counter(name, meaning, labels, registry=self.registry))

    def _timed(
        self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str
    ) -> _Children[Histogram]:
        return _Children(Histogram(name, meaning, labels, buckets=buckets, registry=self.registry))
