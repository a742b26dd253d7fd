"""A container as a real process: started with the container's environment, probed, and ended with grace."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from moorage_kubernetes.testing.logs import Log
from moorage_kubernetes.testing.statuses import Json

_PR_SET_PDEATHSIG = 1
_MOST_LINE = 1024**2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Start:
    """What is to be started: `env` is the container's, resolved; `port` is what it is to listen on."""

    pod: Json
    container: Json
    env: Mapping[str, str]
    port: int


@dataclass(frozen=True, slots=True)
class Command:
    """`env` is put over the container's; PORT is set to the port unless it is in there."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Running:
    process: Process
    reading: asyncio.Task[None]

    async def wait(self) -> int:
        return await self.process.wait()

    def terminate(self) -> None:
        _signal(self.process.pid, signal.SIGTERM)

    async def kill(self) -> None:
        """Ends it, and whatever it has started; returns when its output is read."""
        _signal(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        await asyncio.wait({self.reading}, timeout=1)
        self.reading.cancel()


async def start(wanted: Start, command: Command, log: Log) -> Running:
    """Raises OSError where there is no such program."""
    env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    env |= {**wanted.env, "PORT": str(wanted.port), **command.env}
    process = await asyncio.create_subprocess_exec(
        *command.argv,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        limit=_MOST_LINE,
        preexec_fn=_die_with_parent,
    )
    return Running(process, asyncio.create_task(_read(process, log)))


async def answers(port: int, probe: Json | None) -> str:
    """Why a probe fails; "" where it passes. Without a probe a container is ready once it listens."""
    if probe is None or "httpGet" not in probe:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return f"dial tcp 127.0.0.1:{port}: connect: connection refused"
        writer.close()
        return ""
    url = f"http://127.0.0.1:{port}{probe['httpGet'].get('path', '/')}"
    wait = aiohttp.ClientTimeout(total=probe.get("timeoutSeconds", 1))
    try:
        async with aiohttp.ClientSession(timeout=wait) as session, session.get(url) as response:
            if 200 <= response.status < 400:
                return ""
            return f"HTTP probe failed with statuscode: {response.status}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return f'Get "{url}": {error or "context deadline exceeded"}'


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def _read(process: Process, log: Log) -> None:
    assert process.stdout is not None
    with contextlib.suppress(ValueError):  # a line beyond the limit ends the log, not the container
        async for line in process.stdout:
            log.write(line.decode("utf-8", "replace").rstrip("\r\n"))


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
