"""A free port for a worker, that no other supervisor picks at the same moment.

The kernel says what is free now; a byte range lock on a shared file, one byte a port, keeps it from the other
supervisors until the worker has it. The locks end with the process that holds them. A program that is none
of ours can still be faster; then the worker fails to listen, exits, and is started on another port.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path


class FreePorts:
    def __init__(self, path: Path) -> None:
        # One descriptor for life: closing any other one on the same file would drop this process's locks.
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, host: str) -> int:
        """Raises OSError when a hundred candidates were all taken, or the address is none of this machine."""
        for _ in range(100):
            with socket.socket(family(host)) as candidate:
                candidate.bind((host, 0))
                port: int = candidate.getsockname()[1]
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            except (BlockingIOError, PermissionError):
                continue
            return port
        raise OSError(f"no free port on {host} found in a hundred tries")

    def give_back(self, port: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, port)


def family(host: str) -> socket.AddressFamily:
    """Of an IP address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET
