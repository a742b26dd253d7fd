"""The life of the process: listen at once, load behind, serve, and go quietly when told to.

The server is up before the model is, so that a supervisor can tell "still loading" from "dead". A model that
cannot be loaded ends the process, since nothing that it could answer would be of use.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading

from aiohttp import web

from moorage_worker.errors import LoadFailed, cause_line
from moorage_worker.faces.app import build_app
from moorage_worker.faces.context import ServingContext
from moorage_worker.loading import load_model
from moorage_worker.pool import InferencePool
from moorage_worker.readiness import LoadedModel, Readiness
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
    readiness = Readiness()
    pool = InferencePool(settings.threads, settings.max_waiting)
    context = ServingContext(settings.model_id, settings.model, readiness, pool)
    runner = web.AppRunner(build_app(context), access_log=None, shutdown_timeout=DRAIN_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=1024)
        await site.start()
    except OSError as error:
        log.error("cannot listen on %s port %d: %s", settings.host, settings.port, error)  # noqa: TRY400
        return EXIT_FAILED
    log.info("listening on http://%s:%d, model %s", *runner.addresses[0][:2], settings.model_id)
    _start_loading(settings, readiness, end)
    failure = await end.reached()
    await site.stop()
    if failure is None:
        log.info("stopped listening, %d requests in flight", pool.admitted)
    await runner.cleanup()
    if failure is None:
        log.info("stopped")
        return EXIT_OK
    log.error("model %s failed to load: %s", settings.model_id, cause_line(failure))
    return EXIT_FAILED


class _End:
    """The end of the service, awaited once: None after a signal, or why the load failed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Exception | None] = self._loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._settle, None)

    def fail(self, error: Exception) -> None:
        """Called from the loading thread."""
        self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, failure: Exception | None) -> None:
        if not self._future.done():
            self._future.set_result(failure)

    async def reached(self) -> Exception | None:
        return await self._future


def _start_loading(settings: WorkerSettings, readiness: Readiness, end: _End) -> None:
    def load() -> None:
        try:
            model = load_model(settings, readiness)
        except LoadFailed as error:
            end.fail(error)
        except Exception as error:  # a bug ends the process too, but leaves its traceback
            log.exception("unexpected error while loading")
            end.fail(error)
        else:
            readiness.model = model
            _log_ready(model)

    threading.Thread(target=load, name="load", daemon=True).start()


def _log_ready(model: LoadedModel) -> None:
    log.info(
        "ready in %.2f s: engine %s, task %s, version %s",
        model.load_seconds,
        model.engine_name,
        model.engine.task,
        model.version,
    )


def end_process(code: int) -> None:
    """Exit now, logs flushed. A normal exit would wait for threads that cannot be stopped."""
    logging.shutdown()
    os._exit(code)
