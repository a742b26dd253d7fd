"""Everything, one after the other, and tables at the end. Some seven minutes.

python -m benchmarks
"""

from __future__ import annotations

import sys

import uvloop

from benchmarks import control_plane, gateway, ladder, machine, scale, stores, webhook
from benchmarks.table import table


def main() -> None:
    print(machine.facts(), flush=True)
    others, rows = machine.Others(), []
    for name, run in (
        ("creates, reads and growth", control_plane.run),
        ("ready to webhook", webhook.run),
        ("the next offer", ladder.run),
        ("many deployments on one replica", scale.run),
    ):
        print(f"{name} …", file=sys.stderr, flush=True)
        rows += uvloop.run(run())
    print("gateway …", file=sys.stderr, flush=True)
    rows += gateway.rows(uvloop.run(gateway.run()))
    print("stores …", file=sys.stderr, flush=True)
    compared = stores.run()
    print(table(rows))
    print()
    print(compared)
    print(others.report())


if __name__ == "__main__":
    main()
