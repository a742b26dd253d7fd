"""What figures are to be read with: the machine, and how much of it others used while they were taken."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

BUSY = 0.1  # of the machine used by others, from which on figures are no longer the service's own


def facts() -> str:
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{_cores()} cores, {platform.machine()}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load average before {load}"
    )


class Others:
    """Measures from when it is made. Own time is this process's and that of its children that have ended."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._own = _busy(), _own()

    def share(self) -> float | None:
        """Of all cores' time; None where the system does not tell."""
        busy = _busy()
        if busy is None or self._busy is None:
            return None
        used = (busy - self._busy) - (_own() - self._own)
        return max(0.0, used / (os.cpu_count() or 1) / (time.monotonic() - self._began))

    def report(self) -> str:
        share = self.share()
        if share is None:
            return "how much others used the machine meanwhile is not known here"
        verdict = "BUSY: rates are lower bounds, tails are mostly theirs" if share >= BUSY else "quiet"
        return f"others used {share:.0%} of the machine meanwhile ({verdict})"


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _own() -> float:
    return sum(os.times()[:4])


def _busy() -> float | None:
    """CPU seconds of everybody since boot, from Linux's /proc; guests are counted in user time already."""
    try:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(
            int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        )
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
