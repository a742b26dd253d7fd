"""A service on a socket: taken before anything else begins, served until a signal says that it is enough."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
from collections.abc import Callable, Iterator
from urllib.parse import unquote, urlsplit

import structlog
import uvicorn
import uvloop

from moorage.adapters import logging as service_logging
from moorage.domain.retry import Backoff
from moorage.errors import StoreUnavailable
from moorage.gateway import headers, heap
from moorage.gateway.asgi import App, Receive, Scope, Send
from moorage.gateway.problems import send_problem
from moorage.main import running
from moorage.settings import Settings

log = structlog.get_logger(__name__)

STORE_RETRY = Backoff(base=0.5, cap=5.0)


class Front:
    """What the socket leads to: the service; and before there is one, a refusal that says why."""

    def __init__(self) -> None:
        self.service: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.service is not None:
            await self.service(scope, receive, send)
        elif scope["path"] == "/health":  # alive, and to be left alone: a restart would not help
            await send({"type": "http.response.start", "status": 200, "headers": _JSON})
            await send({"type": "http.response.body", "body": b'{"status":"starting"}'})
        else:
            await send_problem(send, StoreUnavailable().problem, headers.request_id(scope["headers"]))


_JSON = [(b"content-type", b"application/json")]


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
    password = urlsplit(settings.store_url).password
    secrets = [] if password is None else [password, unquote(password)]
    service_logging.configure(settings.log_format, settings.log_level, secrets=secrets)
    with listening(settings.host, settings.port) as sock:
        await serve_on(sock, settings, on_started)


async def serve_on(
    sock: socket.socket, settings: Settings, on_started: Callable[[str], None] | None = None
) -> None:
    """Where the store does not answer at the start, the socket answers 503 until it does."""
    url = settings.base_url(sock.getsockname()[1])
    front = Front()
    config = uvicorn.Config(
        front,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    server = _Server(config)
    serving: asyncio.Task[None] | None = None
    try:
        async with contextlib.AsyncExitStack() as stack:
            failures = 0
            while front.service is None:
                try:
                    front.service = (await stack.enter_async_context(running(settings, url))).asgi
                except StoreUnavailable as error:
                    log.warning("service.store_unavailable", error=str(error))
                    failures += 1
                    serving = serving or asyncio.create_task(server.serve(sockets=[sock]))
                    await asyncio.wait({serving}, timeout=STORE_RETRY.delay(failures, random.random()))
                    if serving.done():
                        return
            heap.settle()
            log.info("service.started", url=url, data_dir=str(settings.data_dir))
            if on_started is not None:
                on_started(url)
            await (serving or server.serve(sockets=[sock]))
            front.service = None
    finally:
        if serving is not None:
            server.should_exit = True
            await serving
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
