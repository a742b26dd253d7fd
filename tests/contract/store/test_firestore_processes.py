"""Two processes at work on one Firestore: what only real processes can show."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from moorage.adapters.firestore.store import FirestoreStore
from moorage.ports.store import Insert
from moorage.testing.firestore import MISSING, available, shared_emulator
from moorage.testing.store_rows import deployment, job

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)

CLAIMER = Path(__file__).parent / "programs" / "claimer.py"
ROWS = 60
JOBS = 60


async def run(url: str, name: str, gate: asyncio.Barrier) -> list[str]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CLAIMER), url, name, stdin=pipe, stdout=pipe
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()).strip() == b"ready"
    await gate.wait()
    output, _ = await process.communicate(b"go\n")
    assert process.returncode == 0
    done: list[str] = json.loads(output)
    return done


async def test_two_processes_finish_each_row_once() -> None:
    url = shared_emulator().new_database()
    store = await FirestoreStore.open(url)
    await store.commit([Insert(deployment(number)) for number in range(ROWS)])
    await store.commit([Insert(job(number, f"dep_{number % 3}")) for number in range(JOBS)])
    gate = asyncio.Barrier(2)
    async with asyncio.timeout(100):
        results = await asyncio.gather(run(url, "a", gate), run(url, "b", gate))
    done = Counter(id_ for result in results for id_ in result)
    assert done == Counter(
        [*(f"dep_{number:04d}" for number in range(ROWS)), *(f"job-{number:04d}" for number in range(JOBS))]
    )
    assert all(results), "only one of them ran: nothing was raced"
    for number in range(ROWS):
        row = await store.deployment(f"dep_{number:04d}")
        assert row is not None
        assert row.version == 2
    await store.aclose()
