"""What watches a service from outside, put together: counts, traces, and the answer to a scrape.

Beside `main`, which says what the service is made of; here is what is told of it, and what is read off it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from secrets import token_hex

from moorage.adapters.control_metrics import ControlMetrics
from moorage.engine.census import Census
from moorage.engine.job_runner import JobRunner
from moorage.engine.loop import Engine
from moorage.engine.outbox import Outbox
from moorage.ports.outside import Clock
from moorage.ports.telemetry import NO_TRACES, Traces
from moorage.services.readiness import Readiness
from moorage.settings import Settings


def watch_engine(
    metrics: ControlMetrics, clock: Clock, engine: Engine, outbox: Outbox, jobs: JobRunner
) -> None:
    """Has them looked at, at every scrape: a look is quick, and waits for nobody."""
    for name, meaning, read in (
        (
            "moorage_engine_deployments_in_hand",
            "Deployments that this process drives now.",
            lambda: engine.in_hand,
        ),
        (
            "moorage_engine_places",
            "Deployments that this process drives at once at most.",
            lambda: engine.places,
        ),
        (
            "moorage_engine_lag_seconds",
            "How late the deployment is, at most, that is due longest and in nobody's hand.",
            lambda: engine.pulse.lag(clock.now()),
        ),
        (
            "moorage_webhook_messages_sending",
            "Webhook messages that wait for their receivers' answers.",
            lambda: outbox.sending,
        ),
        (
            "moorage_webhook_messages_waiting",
            "Webhook messages that this process has in hand, behind others to the same receivers.",
            lambda: outbox.waiting,
        ),
        (
            "moorage_webhook_lag_seconds",
            "How late the webhook message is, at most, that is due longest.",
            lambda: outbox.lag(clock.now()),
        ),
        ("moorage_jobs_running", "Jobs that this process carries out now.", lambda: jobs.in_hand),
    ):
        metrics.gauge(name, meaning, (), _alone(read))


def watch_deployments(metrics: ControlMetrics, clock: Clock, census: Census) -> None:
    """Every process counts all of them: add up nothing over processes."""
    metrics.gauge(
        "moorage_deployments",
        "Deployments that are not over, by phase.",
        ("phase",),
        lambda: {(phase.value,): float(count) for phase, count in census.counts().items()},
    )
    metrics.gauge(
        "moorage_deployments_longest_in_phase_seconds",
        "Since when the deployment is in the phase that is in it longest.",
        ("phase",),
        lambda: {(phase.value,): seconds for phase, seconds in census.longest(clock.now()).items()},
    )


def scrape(metrics: ControlMetrics, readiness: Readiness) -> Callable[[], Awaitable[bytes]]:
    """What the service adds to the gateway's own metrics. The checks of `/ready` are made for it, so that who
    looks at nothing but metrics learns of them too."""
    checks: dict[tuple[str, ...], float] = {}
    metrics.gauge("moorage_ready", "1 when the check of /ready is passed.", ("check",), lambda: checks)

    async def told() -> bytes:
        checks.update({(c.name,): float(c.trouble is None) for c in await readiness.checks()})
        return metrics.exposition()

    return told


def _alone(read: Callable[[], float]) -> Callable[[], Mapping[tuple[str, ...], float]]:
    return lambda: {(): read()}


@contextlib.asynccontextmanager
async def traces_of(settings: Settings) -> AsyncIterator[Traces]:
    """Where traces go; nowhere, at no cost, without a collector. Raises ValueError where there is one, and
    what speaks to it is not installed."""
    if settings.otlp_endpoint is None:
        yield NO_TRACES
        return
    try:
        from moorage.adapters.telemetry import OtelTraces
    except ImportError as error:
        raise ValueError(
            f"MOORAGE_OTLP_ENDPOINT is set, and {error.name} is not installed: install moorage[otel]"
        ) from error
    traces = await asyncio.to_thread(OtelTraces.open, settings.otlp_endpoint, token_hex(8))
    try:
        yield traces
    finally:
        await traces.aclose()
