"""Tells the services that something changed: a datagram with the endpoint's name to each who listens.

A socket whose service died refuses the datagram, and is removed by whoever notices. A service that is too
slow loses the datagram: its queue is then full of reasons to look already.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path


def announce(folder: Path, name: str) -> None:
    """Never raises: a change is in the state file whether or not anybody hears of it."""
    try:
        with short_path(folder) as short, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for receiver in short.iterdir():
                _send(sender, receiver, name)
    except OSError:
        return


def _send(sender: socket.socket, receiver: Path, name: str) -> None:
    try:
        sender.sendto(name.encode(), str(receiver))
    except ConnectionRefusedError:
        receiver.unlink(missing_ok=True)
    except OSError:
        return


@contextlib.contextmanager
def short_path(folder: Path) -> Iterator[Path]:
    """The folder under a path of a few bytes: a socket's address holds no more than 107."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
