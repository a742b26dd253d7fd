"""The life of the process: listen at once, load behind, serve, and go quietly when told to.

The server is up before the model is, so that a supervisor can tell "still loading" from "dead". A model that
cannot be loaded ends the process, since nothing that it could answer would be of use.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from aiohttp import web

from moorage_worker.arrival import Arrival
from moorage_worker.cache.results import ResultBucket
from moorage_worker.errors import cause_line
from moorage_worker.faces.app import build_app, build_health_app
from moorage_worker.faces.context import ServingContext
from moorage_worker.faces.media_results import MediaResults
from moorage_worker.pool import InferencePool
from moorage_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
EXIT_OK, EXIT_FAILED = 0, 1


async def serve(settings: WorkerSettings) -> int:
    """Run until a signal or a failed load; returns the exit code.

    Threads may still be busy when this returns (a cut-off download, an inference past its grace), so the
    caller must end the process without joining them.
    """
    # Before the port is open: from then on a supervisor may send a signal.
    end = _End()
    arrival = Arrival(settings)
    pool = InferencePool(settings.threads, settings.max_waiting)
    media = MediaResults(ResultBucket.of(settings.cache))
    context = ServingContext(settings.model_id, settings.model, arrival.readiness, pool, media)
    runner = _runner(build_app(context, settings.health_path))
    probes = _runner(build_health_app(context, settings.health_path))
    await runner.setup()
    await probes.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=1024)
        await site.start()
        if settings.health_port not in (None, settings.port):
            await web.TCPSite(probes, settings.host, settings.health_port).start()
    except OSError as error:
        log.error("cannot listen on %s port %d: %s", settings.host, settings.port, error)  # noqa: TRY400
        return EXIT_FAILED
    log.info("listening on http://%s:%d, model %s", *runner.addresses[0][:2], settings.model_id)
    arrival.loaded.add_done_callback(lambda loaded: end.fail_with(loaded.exception()))
    arrival.begin()
    failure = await end.reached()
    await site.stop()
    if failure is None:
        log.info("stopped listening, %d requests in flight", pool.admitted)
    await runner.cleanup()
    await probes.cleanup()
    if failure is None:
        log.info("stopped")
        return EXIT_OK
    log.error("model %s failed to load: %s", settings.model_id, cause_line(failure))
    return EXIT_FAILED


def _runner(app: web.Application) -> web.AppRunner:
    """A handler whose caller went away is cancelled, so that it can stop what it works on."""
    return web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN_SECONDS, handler_cancellation=True)


class _End:
    """The end of the service, awaited once: None after a signal, or why the load failed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[BaseException | None] = self._loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._settle, None)

    def fail_with(self, error: BaseException | None) -> None:
        """Called from the loading thread; None is no failure."""
        if error is not None:
            self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, failure: BaseException | None) -> None:
        if not self._future.done():
            self._future.set_result(failure)

    async def reached(self) -> BaseException | None:
        return await self._future


def end_process(code: int) -> None:
    """Exit now, logs flushed. A normal exit would wait for threads that cannot be stopped."""
    logging.shutdown()
    os._exit(code)
