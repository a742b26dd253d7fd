"""Asks a worker `GET /ready` without ever blocking the supervisor's loop.

Written on a plain socket: the supervisor does nothing else over HTTP, and a client library would double its
memory and its time to start.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
from dataclasses import dataclass

from moorage_managed.tcp_ports import family

_LIMIT = 64 * 1024
_REQUEST = b"GET /ready HTTP/1.1\r\nHost: replica\r\nAccept: application/json\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """`ready` is a 200. `stage` is what the worker says it is doing, if it says so."""

    ready: bool
    stage: str | None = None


def read_answer(raw: bytes) -> Answer | None:
    """None when it is no HTTP answer."""
    head, _, body = raw.partition(b"\r\n\r\n")
    parts = head.split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1."):
        return None
    return Answer(parts[1] == b"200", _stage(body))


def _stage(body: bytes) -> str | None:
    try:
        told = json.loads(body)
    except ValueError:
        return None
    stage = told.get("stage") if isinstance(told, dict) else None
    return stage[:64] if isinstance(stage, str) else None


class Probe:
    """One question. The loop selects on it, and calls `step` when it is due; `done` ends it."""

    def __init__(self, selector: selectors.BaseSelector, address: tuple[str, int], deadline: float) -> None:
        self.deadline = deadline  # monotonic
        self.done = False
        self.answer: Answer | None = None
        self._selector = selector
        self._raw = b""
        self._socket = socket.socket(family(address[0]))
        self._socket.setblocking(False)
        code = self._socket.connect_ex(address)
        if code in (0, errno.EINPROGRESS):
            selector.register(self._socket, selectors.EVENT_WRITE, self.step)
        else:
            self.close()

    def step(self) -> None:
        """Goes as far as the socket lets it."""
        try:
            if self._selector.get_key(self._socket).events == selectors.EVENT_WRITE:
                self._socket.sendall(_REQUEST)  # far below the size of any send buffer
                self._selector.modify(self._socket, selectors.EVENT_READ, self.step)
                return
            part = self._socket.recv(_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._raw += part
        if not part or len(self._raw) > _LIMIT:
            self.answer = read_answer(self._raw)
            self.close()

    def close(self) -> None:
        if self.done:
            return
        self.done = True
        if self._socket in self._selector.get_map():
            self._selector.unregister(self._socket)
        self._socket.close()
