"""The service is killed again and again, in the middle of everything, and nothing is lost, doubled or left.

Seeded: a failure names the seed and the kill points that led to it. MOORAGE_CRASH_KILLS is the number of
kills over all seeds (200 by default, 1,000 in `make crash`).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any  # JSON of the API

import httpx
import pytest

from moorage.testing.killing import KillableService, Life

from .conftest import PASSWORD, Receiver, processes_of

KILLS = int(os.environ.get("MOORAGE_CRASH_KILLS", "200"))
SEEDS = 10
FAR = 420  # steps: beyond what a service's start, one deployment's whole life and its messages take
PHASES = ("validating", "selecting_gpu", "creating_endpoint", "loading_model", "ready", "deleted")

pytestmark = pytest.mark.crash


class Supervisor:
    """Starts the service again whenever it died, to be killed at a random step, until the kills are spent."""

    def __init__(self, service: KillableService, kills: int, rng: random.Random, far: int = FAR) -> None:
        self._service = service
        self._far = far
        self._left = kills
        self._rng = rng
        self.points: list[int] = []
        self.spent = asyncio.Event()
        self._life: Life | None = None

    async def run(self) -> None:
        while True:
            at = self._rng.randint(1, self._far) if self._left else 0
            if not at:
                self.spent.set()
            self._life = self._service.start(at)
            code = await self._life.death()
            if code != -9:
                raise AssertionError(f"the service ended by itself with {code}")
            self._left -= 1
            self.died(at)

    def died(self, at: int) -> None:
        """It was killed at that step, and is about to be started again."""
        self.points.append(at)

    async def outlived(
        self, supervising: asyncio.Task[None], life: Callable[[int], Coroutine[Any, Any, None]]
    ) -> int:
        """One `life` after the other until the kills are spent; returns how many there were."""
        number = 0
        while not self.spent.is_set() or number == 0:
            living = asyncio.create_task(life(number))
            await asyncio.wait([living, supervising], return_when=asyncio.FIRST_COMPLETED)
            if supervising.done():
                living.cancel()
                await supervising
            await living
            number += 1
        return number

    def stop(self) -> None:
        if self._life is not None:
            self._life.kill()


class User:
    """Does not give up: repeats what was not answered, a create under the same Idempotency-Key."""

    def __init__(self, url: str, receiver: Receiver, locks: Path) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=5.0)
        self._hook = receiver.url
        self._locks = locks
        self.accepted: list[str] = []

    async def sign_in(self) -> None:
        body = {"username": "owner", "password": PASSWORD}
        answer = await self._insist(lambda: self._http.post("/auth/token", json=body))
        self._http.headers["authorization"] = f"Bearer {answer.json()['token']}"

    def body(self, number: int) -> dict[str, object]:
        return {
            "hf_model_id": "moorage/digits",
            "user_webhook_url": self._hook,
            "env": {"CRASH_DIR": str(self._locks), "CRASH_DEPLOYMENT": str(number)},
        }

    async def create(self, number: int) -> str:
        body = self.body(number)
        key = {"idempotency-key": f"create-{number}"}
        answer = await self._insist(lambda: self._http.post("/v1/deployments", json=body, headers=key))
        assert answer.status_code == 202, answer.text
        self.accepted.append(answer.json()["deployment_id"])
        return self.accepted[-1]

    async def delete(self, deployment_id: str) -> None:
        answer = await self._insist(lambda: self._http.delete(f"/v1/deployments/{deployment_id}"))
        assert answer.status_code == 204, answer.text

    async def infer(self, deployment_id: str, body: dict[str, Any]) -> dict[str, Any]:
        path = f"/v1/models/{deployment_id}/infer"
        answer = await self._insist(lambda: self._http.post(path, json=body))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self._insist(lambda: self._http.get(path))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def until(self, deployment_id: str, *statuses: str) -> str:
        while True:
            status: str = (await self.get(f"/v1/deployments/{deployment_id}"))["status"]
            if status in statuses:
                return status
            await asyncio.sleep(0.03)

    async def _insist(self, request: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        while True:
            try:
                answer = await request()
            except httpx.TransportError:
                await asyncio.sleep(0.01)
                continue
            if answer.status_code < 500:
                return answer
            await asyncio.sleep(0.05)


async def one_life(user: User, number: int, rng: random.Random) -> None:
    """Create, mostly wait until it is ready, delete: what is asked for while the service dies and rises."""
    deployment_id = await user.create(number)
    if rng.random() < 0.75:
        await user.until(deployment_id, "ready", "failed")
    else:
        await asyncio.sleep(rng.random() * 0.3)
    await user.delete(deployment_id)
    await user.until(deployment_id, "deleted")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_nothing_is_lost_doubled_or_left(
    seed: int, service: KillableService, receiver: Receiver, tmp_path: Path
) -> None:
    kills = KILLS // SEEDS + (1 if seed < KILLS % SEEDS else 0)
    rng = random.Random(seed)
    supervisor = Supervisor(service, kills, rng)
    supervising = asyncio.create_task(supervisor.run())
    user = User(service.url, receiver, tmp_path / "locks")
    try:
        await user.sign_in()
        number = await supervisor.outlived(supervising, lambda number: one_life(user, number, rng))
        await everything_is_told(user, receiver)
        await nothing_is_left(user, receiver, tmp_path)
    except BaseException:
        print(f"seed {seed}, kill points {supervisor.points}")
        print(service.log.read_text()[-6000:] if service.log.exists() else "no log")
        raise
    finally:
        supervising.cancel()
        supervisor.stop()
    print(f"seed {seed}: {len(supervisor.points)} kills, {number} deployments")
    assert len(supervisor.points) == kills
    assert not processes_of(tmp_path), "a process outlived its deployment and the service"


async def everything_is_told(user: User, receiver: Receiver) -> None:
    deadline = time.monotonic() + 30
    while (await user.get("/v1/deliveries?state=pending&limit=100"))["items"]:
        assert time.monotonic() < deadline, "messages are stuck"
        await asyncio.sleep(0.05)


async def nothing_is_left(user: User, receiver: Receiver, folder: Path) -> None:
    assert not (folder / "locks" / "DOUBLED").exists(), "two workers of one deployment at once"
    listed = await user.get("/v1/deployments?limit=200")
    assert {d["deployment_id"] for d in listed["items"]} == set(user.accepted), "accepted is what exists"
    assert Counter(user.accepted).most_common(1)[0][1] == 1, "one deployment a create"
    for deployment in listed["items"]:
        assert deployment["status"] == "deleted"
        assert deployment["error"] is None
        id_ = deployment["deployment_id"]
        events = (await user.get(f"/v1/deployments/{id_}/events?limit=1000"))["items"]
        happened = Counter(e["type"] for e in events)
        for phase in PHASES:
            assert happened[f"deployment.{phase}"] <= 1, f"{phase} happened twice: {happened}"
        assert happened["deployment.deleted"] == 1
        for type_, ids in receiver.ids(id_).items():
            assert len(ids) == 1, f"{type_} has one id, however often it is sent"
        sent = {t for t in happened if t.removeprefix("deployment.") in PHASES}
        assert sent <= set(receiver.ids(id_)), "every message arrived at least once"
    for bodies in receiver.bodies.values():
        assert len(set(bodies)) == 1, "the same message is the same, byte for byte"
    deadline = time.monotonic() + 10  # a stale create may still be being undone
    while left := list((folder / "var" / "managed").glob("mrg-*")):
        assert time.monotonic() < deadline, f"the provider still holds {left}"
        await asyncio.sleep(0.05)
