"""The fake as a process of its own, which outlives the service under test.

    python -m moorage_runpod.testing --port 0 --image 'acme/worker:1=python -m acme.worker'

prints `{"api_url": …, "job_url": …, "key": …, "control_url": …}` and serves until it is told to end. Faults:
`POST {control_url}/faults`; what happened: `GET {control_url}/state`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import signal
import sys
from collections.abc import Sequence

from moorage_runpod.testing.accounts import EVERYTHING, Account
from moorage_runpod.testing.fake import KEY, FakeRunPod


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m moorage_runpod.testing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--key", action="append", metavar="KEY", help="an account of its own for each")
    parser.add_argument("--workers-quota", type=int, default=100, metavar="N", help="of each account")
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="IMAGE=COMMAND",
        help="workers of this image run this command; those of other images are simulated",
    )
    parser.add_argument("--load-seconds", type=float, default=0.02, help="of a simulated worker")
    return parser.parse_args(argv)


def _fake(arguments: argparse.Namespace) -> FakeRunPod:
    """Raises ValueError for an argument that cannot be."""
    images = {}
    for entry in arguments.image:
        image, _, command = entry.partition("=")
        if not image or not shlex.split(command):
            raise ValueError(f"--image {entry}: must be IMAGE=COMMAND")
        images[image] = shlex.split(command)
    keys = arguments.key or [KEY]
    accounts = [
        Account(f"account-{n}", {key: EVERYTHING}, arguments.workers_quota)
        for n, key in enumerate(keys, start=1)
    ]
    return FakeRunPod(
        accounts=accounts, images=images, load_seconds=arguments.load_seconds, port=arguments.port
    )


async def serve(fake: FakeRunPod, key: str) -> None:
    """Serves until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with fake:
        told = {
            "api_url": fake.api_url,
            "job_url": fake.job_url,
            "key": key,
            "control_url": f"{fake.api_url}/_fake",
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        await ended.wait()


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    try:
        asyncio.run(serve(_fake(arguments), (arguments.key or [KEY])[0]))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
