"""The fake as a process of its own, as a test of a whole service starts it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

import moorage_runpod

Started = Callable[..., Awaitable["Program"]]


@dataclass(slots=True)
class Program:
    process: Process
    api_url: str
    job_url: str
    control_url: str
    key: str

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(base_url=self.api_url, headers=headers, timeout=60)


async def spawn(*arguments: str) -> Process:
    root = Path(moorage_runpod.__file__).parents[1]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "moorage_runpod.testing", "--port", "0", *arguments),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


async def start(*arguments: str) -> Program:
    process = await spawn(*arguments)
    assert process.stdout is not None
    told = json.loads(await process.stdout.readline())
    return Program(process, **told)
