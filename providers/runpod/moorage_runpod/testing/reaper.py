"""Kills the process groups of a fake that was killed itself; a process that outlives it by a moment.

    python reaper.py

It reads `+PGID` and `-PGID` lines and, when its input ends, kills the groups that are left. The kernel would
kill a worker together with the fake, but not what the worker started, such as `runpod`'s heartbeat.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        sign, group = line[0], int(line[1:])
        if sign == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
