"""A service on a socket: taken before anything else begins, served until a signal says that it is enough."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import structlog
import uvicorn
import uvloop

from moorage.adapters import logging as service_logging
from moorage.gateway import heap
from moorage.main import running
from moorage.settings import Settings

log = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    """uvicorn raises a caught signal again once it has stopped serving, before we could clean up; here the
    signal ends serving, and the rest is ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def run(settings: Settings, on_started: Callable[[str], None] | None = None) -> None:
    """Serves on a loop of its own, uvloop's, which carries twice the requests of the standard one."""
    uvloop.run(serve(settings, on_started))


async def serve(settings: Settings, on_started: Callable[[str], None] | None = None) -> None:
    """Until SIGINT or SIGTERM. `on_started` gets the service's own URL once it takes requests."""
    service_logging.configure(settings.log_format, settings.log_level)
    with listening(settings.host, settings.port) as sock:
        await serve_on(sock, settings, on_started)


async def serve_on(
    sock: socket.socket, settings: Settings, on_started: Callable[[str], None] | None = None
) -> None:
    url = settings.base_url(sock.getsockname()[1])
    async with running(settings, url) as service:
        config = uvicorn.Config(
            service.asgi,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
            server_header=False,
        )
        heap.settle()
        log.info("service.started", url=url, data_dir=str(settings.data_dir))
        if on_started is not None:
            on_started(url)
        await _Server(config).serve(sockets=[sock])
    log.info("service.stopped")


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket, so that the port is known, and taken, before anything else begins."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off only where the protocol is named; it costs 40 ms a request otherwise.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
        sock.setblocking(False)
        yield sock
