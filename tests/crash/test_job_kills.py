"""The service is killed in the middle of jobs, and each job that was accepted is answered, once.

Seeded, as `test_kills`; MOORAGE_CRASH_JOB_KILLS is the number of kills over all seeds.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any  # JSON of the API

import pytest

from moorage.testing.killing import KillableService

from .conftest import Receiver, processes_of
from .test_kills import Supervisor, User, everything_is_told

KILLS = int(os.environ.get("MOORAGE_CRASH_JOB_KILLS", "40"))
SEEDS = 4
FAR = 260  # steps: beyond a service's start and a burst of jobs
BURST = 4

pytestmark = pytest.mark.crash


class JobUser(User):
    """Queues jobs under keys, so that a lost answer makes no second job."""

    def __init__(self, url: str, receiver: Receiver, locks: Path) -> None:
        super().__init__(url, receiver, locks)
        self.jobs: dict[int, str] = {}

    async def burst(self, deployment: str, number: int) -> None:
        """Some jobs at once, all waited for."""
        numbers = range(number * BURST, (number + 1) * BURST)
        ids = await asyncio.gather(*(self._queue(deployment, n) for n in numbers))
        self.jobs |= dict(zip(numbers, ids, strict=True))
        for id_ in ids:
            await self.answered(deployment, id_)

    async def answered(self, deployment: str, id_: str) -> dict[str, Any]:
        while True:
            found = await self.get(f"/v2/{deployment}/status/{id_}")
            if found["status"] not in ("IN_QUEUE", "IN_PROGRESS"):
                return found
            await asyncio.sleep(0.02)

    async def _queue(self, deployment: str, number: int) -> str:
        body = {"input": {"inputs": number}, "webhook": self._hook}
        key = {"idempotency-key": f"job-{number}"}
        path = f"/v2/{deployment}/run"
        answer = await self._insist(lambda: self._http.post(path, json=body, headers=key))
        assert answer.status_code == 200, answer.text
        id_: str = answer.json()["id"]
        return id_


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_every_job_is_answered_once(
    seed: int, service: KillableService, receiver: Receiver, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    first = service.start()
    user = JobUser(service.url, receiver, tmp_path / "locks")
    supervisor = Supervisor(service, KILLS // SEEDS, rng, FAR)
    supervising: asyncio.Task[None] | None = None
    try:
        await user.sign_in()
        deployment = await user.create(0)
        assert await user.until(deployment, "ready", "failed") == "ready"
        first.kill()
        supervising = asyncio.create_task(supervisor.run())
        bursts = await supervisor.outlived(supervising, lambda number: user.burst(deployment, number))
        await everything_is_told(user, receiver)
        await each_is_answered(user, deployment)
        each_is_told_once(user, receiver)
        await user.delete(deployment)
        await user.until(deployment, "deleted")
    except BaseException:
        print(f"seed {seed}, kill points {supervisor.points}")
        print(service.log.read_text()[-6000:] if service.log.exists() else "no log")
        raise
    finally:
        if supervising is not None:
            supervising.cancel()
        supervisor.stop()
        first.kill()
    print(f"seed {seed}: {len(supervisor.points)} kills, {bursts * BURST} jobs")
    assert len(supervisor.points) == KILLS // SEEDS
    assert not processes_of(tmp_path)


async def each_is_answered(user: JobUser, deployment: str) -> None:
    assert len(set(user.jobs.values())) == len(user.jobs), "one job a key"
    for id_ in user.jobs.values():
        found = await user.answered(deployment, id_)
        assert found["status"] == "COMPLETED", found
        assert found["output"], found
    health = await user.get(f"/v2/{deployment}/health")
    counts = {name: health["jobs"][name] for name in ("completed", "failed", "inProgress", "inQueue")}
    expected = {"completed": len(user.jobs), "failed": 0, "inProgress": 0, "inQueue": 0}
    assert counts == expected, "accepted is what was run"


def each_is_told_once(user: JobUser, receiver: Receiver) -> None:
    messages: Counter[str] = Counter()
    for bodies in receiver.bodies.values():
        assert len(set(bodies)) == 1, "the same message is the same, byte for byte"
        told = json.loads(bodies[0])
        if told["type"].startswith("job."):
            assert told["type"] == "job.completed"
            messages[told["data"]["id"]] += 1
    assert messages == Counter(user.jobs.values()), "one message id a job"


async def test_a_job_under_way_at_the_kill_is_run_again(
    service: KillableService, receiver: Receiver, tmp_path: Path
) -> None:
    """With a replica that is known to be at work: the kill comes between its start and its end."""
    started, finish = tmp_path / "locks" / "started", tmp_path / "locks" / "finish"
    service.environ["MOORAGE_MANAGED_WORKER_COMMAND"] += f" --slow {started} {finish}"
    life = service.start()
    user = JobUser(service.url, receiver, tmp_path / "locks")
    try:
        await user.sign_in()
        deployment = await user.create(0)
        assert await user.until(deployment, "ready", "failed") == "ready"
        id_ = await user._queue(deployment, 1)
        async with asyncio.timeout(20):
            while not started.exists():  # noqa: ASYNC110  # a file gives no signal
                await asyncio.sleep(0.01)
        life.kill()
        finish.touch()
        life = service.start()
        found = await user.answered(deployment, id_)
        assert (found["status"], found["retries"]) == ("COMPLETED", 1)
        assert (await user.get(f"/v2/{deployment}/health"))["jobs"]["retried"] == 1
        await user.delete(deployment)
        await user.until(deployment, "deleted")
    except BaseException:
        print(service.log.read_text()[-6000:])
        raise
    finally:
        life.kill()
    assert not processes_of(tmp_path)
