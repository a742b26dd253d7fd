"""Workers that are real processes, chosen by the endpoint's image, speaking RunPod's worker protocol.

A worker gets the endpoint's environment, RunPod's own variables, and no more of this process's environment
than a container would have.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shlex
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from moorage_runpod.testing import reaper
from moorage_runpod.testing.cloud import Cloud, Endpoint
from moorage_runpod.testing.worker import Worker

GRACE_SECONDS = 1.0
HEALTH_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1
_MOST_LINE = 1024**2
_libc = ctypes.CDLL(None, use_errno=True)


def environment(worker: Worker, base: str, home: Path, port: int | None) -> dict[str, str]:
    """All that the process sees."""
    endpoint, placement = worker.endpoint_id, worker.placement
    own = f"{base}/w/{endpoint}"
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **worker.spec.env,
        "RUNPOD_POD_ID": worker.id,
        "RUNPOD_ENDPOINT_ID": endpoint,
        "RUNPOD_AI_API_KEY": worker.token,
        "RUNPOD_WEBHOOK_GET_JOB": f"{own}/job-take/$ID?gpu=X",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{own}/job-done/$RUNPOD_POD_ID/$ID?gpu=X",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{own}/job-stream/$RUNPOD_POD_ID/$ID?gpu=X",
        "RUNPOD_WEBHOOK_PING": f"{own}/ping/$RUNPOD_POD_ID",
        "RUNPOD_PING_INTERVAL": "4000",
        "RUNPOD_DC_ID": placement.data_center if placement else "",
        "RUNPOD_GPU_COUNT": str(worker.spec.gpu_count),
        # There is no GPU here, and a check of network speed would leave this machine.
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }
    if port is not None:
        env["PORT"] = str(port)
        env["PORT_HEALTH"] = str(port)
        env.setdefault("HEALTH_CHECK_PATH", "/ping")
    return env


@dataclass(frozen=True, slots=True)
class _Container:
    process: Process
    output: asyncio.StreamReader
    pipe: asyncio.ReadTransport


@dataclass(slots=True)
class ProcessRunner:
    """`commands` is by image. An endpoint's `args` are put behind its image's command."""

    cloud: Cloud
    commands: Mapping[str, Sequence[str]]
    _reaper: Process | None = field(default=None, init=False)
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def run(self, worker: Worker, endpoint: Endpoint) -> int:
        with tempfile.TemporaryDirectory(prefix="fake-runpod-", ignore_cleanup_errors=True) as home:
            port = free_port() if worker.spec.balanced else None
            command = [*self.commands[worker.spec.image], *shlex.split(worker.spec.args)]
            env = environment(worker, self.cloud.base, Path(home), port)
            try:
                container = await self._start(command, env, home)
            except OSError as error:
                worker.log.write(f"cannot start the container: {error}")
                return 127
            return await self._attend(container, worker, endpoint, port)

    async def close(self) -> None:
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            await self._reaper.wait()
            self._reaper = None

    async def _attend(
        self, container: _Container, worker: Worker, endpoint: Endpoint, port: int | None
    ) -> int:
        process = container.process
        reading = asyncio.create_task(_read_log(container.output, worker))
        watching = None
        if port is not None:
            watching = asyncio.create_task(self._watch_health(worker, endpoint, port))
        stopping = asyncio.create_task(endpoint.changes.until(lambda: _may_stop(worker) or None))
        ended = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if watching is not None:
                watching.cancel()
            await _end(process)
            self._tell_reaper("-", process.pid)
            await asyncio.wait(
                {reading}, timeout=GRACE_SECONDS
            )  # what was written before the end is still read
            reading.cancel()
            container.pipe.close()
        return await ended

    async def _start(self, command: Sequence[str], env: Mapping[str, str], home: str) -> _Container:
        async with self._starting:
            if self._reaper is None:
                self._reaper = await asyncio.create_subprocess_exec(
                    sys.executable, "-IS", reaper.__file__, stdin=PIPE, start_new_session=True
                )
        # A pipe of our own: asyncio's would keep `wait` from returning while a grandchild holds it open.
        read, write = os.pipe()
        with os.fdopen(write, "wb") as inlet:
            output, pipe = await _reader(read)
            process = await asyncio.create_subprocess_exec(
                *command,
                env=env,
                cwd=home,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=inlet,
                stderr=inlet,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._tell_reaper("+", process.pid)
        return _Container(process, output, pipe)

    def _tell_reaper(self, sign: str, group: int) -> None:
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.write(f"{sign}{group}\n".encode())

    async def _watch_health(self, worker: Worker, endpoint: Endpoint, port: int) -> None:
        """A load balancer asks its workers, as RunPod's does: there is no other signal."""
        path = worker.spec.env.get("HEALTH_CHECK_PATH", "/ping")
        worker.port = worker.health_port = port  # as the process was told, whatever the endpoint's env says
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                        healthy = response.status == 200
                except aiohttp.ClientError:
                    healthy = False
                if healthy != worker.up:
                    worker.up = healthy
                    if healthy:
                        worker.went_up()
                    endpoint.changes.tell()
                    self.cloud.wake()
                await asyncio.sleep(HEALTH_SECONDS)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _may_stop(worker: Worker) -> bool:
    return worker.refresh and not worker.busy


async def _reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=_MOST_LINE)
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    return reader, pipe


async def _read_log(output: asyncio.StreamReader, worker: Worker) -> None:
    with contextlib.suppress(ValueError):  # a line beyond the limit ends the log, not the worker
        async for line in output:
            worker.log.write(line.decode("utf-8", "replace").rstrip("\r\n"))


async def _end(process: Process) -> None:
    """Ends the process, and whatever it has started."""
    if process.returncode is None:
        _signal(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            _signal(process.pid, signal.SIGKILL)
        await process.wait()
    _signal(process.pid, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
