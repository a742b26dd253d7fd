"""The cluster as a process of its own, which outlives the service under test.

    python -m moorage_kubernetes.testing --node gpu-1:gpus=2,cpu=32,memory=128 --run 'python -m acme.worker'

prints `{"url": …, "kubeconfig": <a file>, "token": …}` and serves until SIGTERM. The folder of the kubeconfig
goes with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from moorage_kubernetes.testing.cluster import StandInCluster
from moorage_kubernetes.testing.controllers.processes import Command
from moorage_kubernetes.testing.resources import ADD_ONS


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m moorage_kubernetes.testing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--version", default="1.36", help="1.34, 1.35 or 1.36")
    parser.add_argument("--without", action="append", default=[], choices=list(ADD_ONS), help="an add-on")
    parser.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="NAME[:cpu=N,memory=GIB,gpus=N,KEY=LABEL]",
        help="a node; what is no number of it is a label",
    )
    parser.add_argument("--run", metavar="COMMAND", help="the process of every pod; simulated without it")
    parser.add_argument("--ready-seconds", type=float, default=0.02, help="of a simulated pod")
    return parser.parse_args(argv)


def node_of(text: str) -> tuple[str, dict[str, str], dict[str, float]]:
    """Name, labels, and numbers by `cpu`, `memory` and `gpus`. Raises ValueError."""
    name, _, rest = text.partition(":")
    labels: dict[str, str] = {}
    numbers = {"cpu": 16.0, "memory": 64.0, "gpus": 0.0}
    for part in filter(None, rest.split(",")):
        key, equal, value = part.partition("=")
        if not name or not equal:
            raise ValueError(f"--node {text}: must be NAME:KEY=VALUE,…")
        if key in numbers:
            numbers[key] = float(value)
        else:
            labels[key] = value
    return name, labels, numbers


async def serve(cluster: StandInCluster, nodes: Sequence[str]) -> None:
    """Serves until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    with tempfile.TemporaryDirectory(prefix="stand-in-cluster-") as folder:
        async with cluster:
            for name, labels, numbers in map(node_of, nodes):
                cluster.add_node(name, labels, numbers["cpu"], numbers["memory"], int(numbers["gpus"]))
            file = Path(folder) / "kubeconfig"
            await asyncio.to_thread(file.write_text, cluster.kubeconfig(), "utf-8")
            told = {"url": cluster.url, "kubeconfig": str(file), "token": cluster.token}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            await ended.wait()


def main(argv: Sequence[str] | None = None) -> None:
    os.umask(0o077)  # a kubeconfig is a secret
    arguments = _arguments(argv)
    add_ons = [name for name in ADD_ONS if name not in arguments.without]
    try:
        for node in arguments.node:
            node_of(node)
        cluster = StandInCluster(
            version=arguments.version,
            add_ons=add_ons,
            node=not arguments.node,
            ready_seconds=arguments.ready_seconds,
            port=arguments.port,
        )
    except ValueError as error:
        sys.exit(str(error))
    if arguments.run:
        command = Command(shlex.split(arguments.run))
        cluster.run_pods_with(lambda _: command)
    asyncio.run(serve(cluster, arguments.node))


if __name__ == "__main__":
    main()
