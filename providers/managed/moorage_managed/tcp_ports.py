"""A free loopback port for a worker, that no other supervisor picks at the same moment.

The kernel says what is free now; a byte range lock on a shared file, one byte a port, keeps it from the other
supervisors until the worker has it. The locks end with the process that holds them. A program that is none
of ours can still be faster; then the worker fails to listen, exits, and is started on another port.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path


class LoopbackPorts:
    def __init__(self, path: Path) -> None:
        # One descriptor for life: closing any other one on the same file would drop this process's locks.
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> int:
        """Raises OSError when a hundred candidates were all taken."""
        for _ in range(100):
            with socket.socket() as candidate:
                candidate.bind(("127.0.0.1", 0))
                port: int = candidate.getsockname()[1]
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            except (BlockingIOError, PermissionError):
                continue
            return port
        raise OSError("no free port on 127.0.0.1 found in a hundred tries")

    def give_back(self, port: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, port)
