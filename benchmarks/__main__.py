"""Everything, one after the other, and one table at the end. Some three minutes.

python -m benchmarks
"""

from __future__ import annotations

import os
import platform
import sys

import uvloop

from benchmarks import control_plane, gateway, webhook
from benchmarks.table import table


def _machine() -> str:
    """What the figures are to be read with: others that use the machine show in the tails."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} cores, {platform.machine()}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load average before {load}"
    )


def main() -> None:
    machine, rows = _machine(), []
    print(machine, flush=True)
    for name, run in (
        ("creates, reads and growth", control_plane.run),
        ("ready to webhook", webhook.run),
    ):
        print(f"{name} …", file=sys.stderr, flush=True)
        rows += uvloop.run(run())
    print("gateway …", file=sys.stderr, flush=True)
    rows += gateway.rows(uvloop.run(gateway.run()))
    print(table(rows))


if __name__ == "__main__":
    main()
