"""The life of the process: listen at once, load behind, serve, and go quietly when told to.

The server is up before the model is, so that a supervisor can tell "still loading" from "dead". A model that
cannot be loaded ends the process, since nothing that it could answer would be of use.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from aiohttp import web

from moorage_worker.arrival import Arrival
from moorage_worker.cache.results import ResultBucket
from moorage_worker.ending import EXIT_FAILED, EXIT_OK, End
from moorage_worker.errors import cause_line
from moorage_worker.faces.app import build_app, build_health_app
from moorage_worker.faces.context import ServingContext
from moorage_worker.faces.media_results import MediaResults
from moorage_worker.pool import InferencePool
from moorage_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0


async def serve(settings: WorkerSettings) -> int:
    """Run until a signal or a failed load; returns the exit code.

    Threads may still be busy when this returns (a cut-off download, an inference past its grace), so the
    caller must end the process without joining them.
    """
    # Before the port is open: from then on a supervisor may send a signal.
    end = End()
    arrival = Arrival(settings)
    pool = InferencePool(settings.threads, settings.max_waiting)
    media = MediaResults(ResultBucket.of(settings.cache))
    context = ServingContext(settings.model_id, settings.model, arrival.readiness, pool, media)
    try:
        ports = await listen(settings, context)
    except OSError as error:
        log.error("cannot listen: %s", error)  # noqa: TRY400  # the error names the address
        return EXIT_FAILED
    arrival.loaded.add_done_callback(lambda loaded: end.fail_with(loaded.exception()))
    arrival.begin()
    failure = await end.reached()
    for port in ports:
        await port.site.stop()
    if failure is None:
        log.info("stopped listening, %d requests in flight", pool.admitted)
    for port in ports:
        await port.runner.cleanup()
    if failure is None:
        log.info("stopped")
        return EXIT_OK
    log.error("model %s failed to load: %s", settings.model_id, cause_line(failure))
    return EXIT_FAILED


@dataclass(frozen=True, slots=True)
class Port:
    """One that is listened on, and the application behind it."""

    runner: web.AppRunner
    site: web.TCPSite


async def listen(
    settings: WorkerSettings, context: ServingContext, app: web.Application | None = None
) -> list[Port]:
    """The port of the service, and that of a load balancer's probe where it is another. Raises OSError."""
    app = app or build_app(context, settings.health_path)
    service = await open_port(app, settings.host, settings.port)
    log.info("listening on %s, model %s", service.site.name, settings.model_id)
    if settings.health_port is None:
        return [service]
    health = build_health_app(context, settings.health_path)
    probe = await open_port(health, settings.host, settings.health_port)
    log.info("probe on %s%s", probe.site.name, settings.health_path)
    return [service, probe]


async def open_port(app: web.Application, host: str, port: int) -> Port:
    """Raises OSError."""
    # A handler whose caller went away is cancelled, so that it can stop what it works on.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN_SECONDS, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=1024)
    await site.start()
    return Port(runner, site)
