"""The service's ear: datagrams of supervisors, and the deaths of those that can say nothing any more.

Both become names, handed to every subscriber. A supervisor's pidfd turns readable when it is over, whoever
started it; one that this process started is reaped on that occasion.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moorage_managed.announce import short_path
from moorage_managed.processes import ProcessId

_DATAGRAMS_A_TURN = 256
_QUEUE_LIMIT = 100_000


class Listener:
    """Used on the event loop's thread only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket: socket.socket | None = None
        self._file: Path | None = None
        self._queues: set[asyncio.Queue[str | None]] = set()
        self._shims: dict[str, tuple[ProcessId, int]] = {}
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    @contextmanager
    def subscribe(self) -> Iterator[asyncio.Queue[str | None]]:
        """A queue of names, from now on; None says that the provider was closed."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(_QUEUE_LIMIT)
        self._open()
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)

    def publish(self, name: str) -> None:
        for queue in self._queues:
            with contextlib.suppress(asyncio.QueueFull):  # then it has reasons enough to look
                queue.put_nowait(name)

    def started(self, name: str, child: subprocess.Popen[bytes]) -> None:
        """A supervisor of our own making: watched, and reaped."""
        self._children[child.pid] = child
        process = ProcessId.of(child.pid)
        if process is None:
            self._over(name, child.pid)
        else:
            self.watch_shim(name, process)

    def watch_shim(self, name: str, shim: ProcessId) -> None:
        """Tells the name when that process is over."""
        known = self._shims.get(name)
        if known is not None and known[0] == shim:
            return
        fd = shim.open()
        if fd is None:
            self._over(name, shim.pid)
            return
        self.forget(name)
        self._shims[name] = (shim, fd)
        asyncio.get_running_loop().add_reader(fd, self._shim_died, name, shim, fd)

    def knows_alive(self, name: str) -> bool:
        """Whether a supervisor is being watched that has not ended."""
        return name in self._shims

    async def shim_over(self, name: str, shim: ProcessId, seconds: float) -> bool:
        """Waits until it is over, at most so long."""
        self.watch_shim(name, shim)
        with self.subscribe() as queue:
            try:
                async with asyncio.timeout(seconds):
                    while name in self._shims:
                        if await queue.get() is None:
                            return False
            except TimeoutError:
                return False
        return True

    def forget(self, name: str) -> None:
        known = self._shims.pop(name, None)
        if known is not None:
            asyncio.get_running_loop().remove_reader(known[1])
            os.close(known[1])

    def close(self) -> None:
        for name in list(self._shims):
            self.forget(name)
        for queue in self._queues:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(None)
        for child in self._children.values():
            child.poll()
            child.returncode = child.returncode or 0  # it goes on without us; nobody is to warn of that
        self._children.clear()
        if self._socket is not None and self._file is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            self._file.unlink(missing_ok=True)

    def _open(self) -> None:
        if self._socket is not None:
            return
        file_name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._file = self._folder / file_name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with short_path(self._folder) as short:
            self._socket.bind(str(short / file_name))
        asyncio.get_running_loop().add_reader(self._socket, self._receive, self._socket)

    def _receive(self, ear: socket.socket) -> None:
        told = set()
        with contextlib.suppress(BlockingIOError):
            for _ in range(_DATAGRAMS_A_TURN):
                told.add(ear.recv(256).decode(errors="replace"))
        for name in told:
            self.publish(name)

    def _shim_died(self, name: str, shim: ProcessId, fd: int) -> None:
        known = self._shims.get(name)
        if known == (shim, fd):
            self.forget(name)
        self._over(name, shim.pid)

    def _over(self, name: str, pid: int) -> None:
        for child in [c for c in self._children.values() if c.pid == pid or c.poll() is not None]:
            child.poll()
            del self._children[child.pid]
        self.publish(name)
