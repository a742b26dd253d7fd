"""A service that kills itself: SIGKILL at the n-th time that any of its coroutines goes on after an await.

What a crash test needs is to die between any two steps. Every await that really suspends ends in a resumption
of its task; counting these in a task factory reaches all of them, without a word in the code under test.
Processes are forked from one that has imported everything, so that a start costs little more than the start.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import TracebackType
from typing import Any  # a coroutine's yields and results are anything

from moorage.adapters import logging as service_logging
from moorage.server import serve_on
from moorage.settings import Settings


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells before each of its steps."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], step: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._step = step

    def send(self, value: Any) -> Any:
        self._step()
        return self._coroutine.send(value)

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        trace: TracebackType | None = None,
    ) -> Any:
        self._step()
        return self._coroutine.throw(value if isinstance(value, BaseException) else kind)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


def counting(step: Callable[[], None]) -> Callable[..., asyncio.Task[Any]]:
    """A task factory whose tasks call `step` before each step of theirs."""

    def factory(
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        return asyncio.Task(_Counted(coroutine, step), loop=loop, name=name, context=context)

    return factory


def _serve(
    environ: dict[str, str], sock: socket.socket, kill_at: int, count: Synchronized[int], log: Path
) -> None:
    os.setpgid(0, 0)  # a Ctrl-C of the test run is the parent's to handle
    os.environ.update(environ)
    stderr = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(stderr, 2)
    raw = count.get_obj()

    def step() -> None:
        raw.value += 1
        if raw.value == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(counting(step))
        service_logging.configure("json", "info")
        await asyncio.create_task(serve_on(sock, Settings(_env_file=None)))

    asyncio.run(main())
    sys.exit(0)


class KillableService:
    """Starts services on one data dir and one listening socket, one after the other or side by side.

    The parent holds the socket: connections made while no service runs wait in its queue.
    """

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        self.environ = environ
        self.log = log
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.sock.setblocking(False)
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}"
        self._fork: ForkServerContext = multiprocessing.get_context("forkserver")
        self._fork.set_forkserver_preload(["moorage.testing.preloaded", "moorage.testing.killing"])

    def start(self, kill_at: int = 0) -> Life:
        """`kill_at` 0 is never."""
        count: Synchronized[int] = self._fork.Value("l", 0)
        process = self._fork.Process(
            target=_serve, args=(self.environ, self.sock, kill_at, count, self.log), daemon=True
        )
        process.start()
        return Life(process, count)

    def close(self) -> None:
        self.sock.close()


class Life:
    """One process of the service, from its start to its death."""

    def __init__(self, process: ForkServerProcess, count: Synchronized[int]) -> None:
        self.process = process
        self._count = count

    @property
    def steps(self) -> int:
        return int(self._count.get_obj().value)

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    async def death(self) -> int | None:
        """Waits for it, without blocking; the exit code, negative for a signal."""
        loop, dead = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.process.sentinel, dead.set)
        try:
            await dead.wait()
        finally:
            loop.remove_reader(self.process.sentinel)
        self.process.join()
        return self.process.exitcode

    def signal(self, number: int) -> None:
        if self.process.pid is not None and self.alive:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.join()
