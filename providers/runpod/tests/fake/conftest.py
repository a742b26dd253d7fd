"""A fake RunPod and a client with its key."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from moorage_runpod.testing import KEY, FakeRunPod

from .program import Program, Started, start


@pytest.fixture
async def fake() -> AsyncIterator[FakeRunPod]:
    async with FakeRunPod() as running:
        yield running


@pytest.fixture
async def client(fake: FakeRunPod) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=fake.api_url, headers=headers, timeout=20) as one:
        yield one


@pytest.fixture
async def started() -> AsyncIterator[Started]:
    """Starts the fake as a process; those that still run are killed at the end."""
    programs: list[Program] = []

    async def one(*arguments: str) -> Program:
        programs.append(await start(*arguments))
        return programs[-1]

    yield one
    for program in programs:
        if program.process.returncode is None:
            program.process.kill()
        await program.process.wait()
