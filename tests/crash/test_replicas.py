"""Several processes of the service on one store, killed at random at work: nothing is lost, nothing doubled.

All see the same compute: worker processes in a folder that each of them finds under its own data directory.
Seeded as `test_kills`; of MOORAGE_CRASH_KILLS a tenth is spent here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON of the API

import httpx
import pytest

from moorage.testing.firestore import MISSING, FirestoreEmulator, available
from moorage.testing.killing import KillableService
from moorage.testing.postgres import PostgresMissing, PostgresServer
from moorage.testing.replicas import AnyOf, Replicas

from .conftest import HERE, PASSWORD, Receiver, processes_of
from .takeovers import Takeovers
from .test_kills import PHASES, Supervisor, User, everything_is_told

KILLS = int(os.environ.get("MOORAGE_CRASH_KILLS", "200")) // 10
LEASE = 1.0  # seconds
FAR = 900  # steps: several lives at once go through every process
LIVES_AT_ONCE = 4
SEED = 7

pytestmark = pytest.mark.crash


class Everyone(User):
    """Asks whichever replica comes first, and believes what most of them do not know yet."""

    def __init__(self, services: list[KillableService], receiver: Receiver, folder: Path) -> None:
        super().__init__(services[0].url, receiver, folder / "locks")
        any_of = AnyOf(lambda: [service.url for service in services], random.Random(SEED))
        self._http = httpx.AsyncClient(base_url="http://any", transport=any_of, timeout=5.0)
        self.inferred = 0

    async def infer(self, deployment_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Until the route has come to the replica that was asked."""
        path = f"/v1/models/{deployment_id}/infer"
        while (answer := await self._insist(lambda: self._http.post(path, json=body))).status_code == 404:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert answer.status_code == 200, answer.text
        self.inferred += 1
        found: dict[str, Any] = answer.json()
        return found

    async def deployments(self) -> list[dict[str, Any]]:
        found, cursor = [], ""
        while True:
            page = await self.get(f"/v1/deployments?limit=100{cursor}")
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"


async def one_life(user: Everyone, number: int, rng: random.Random) -> None:
    id_ = await user.create(number)
    if rng.random() < 0.7:
        assert await user.until(id_, "ready", "failed") == "ready"
        for _ in range(3):
            assert (await user.infer(id_, {"inputs": [number]}))["status"] == "ready"
    else:
        await asyncio.sleep(rng.random() * 0.5)
    await user.delete(id_)
    await user.until(id_, "deleted")


class Noticed(Supervisor):
    """Tells of each kill."""

    def __init__(
        self,
        service: KillableService,
        kills: int,
        rng: random.Random,
        far: int,
        on_kill: Callable[[], None],
    ) -> None:
        super().__init__(service, kills, rng, far)
        self._on_kill = on_kill

    def died(self, at: int) -> None:
        super().died(at)
        self._on_kill()


@dataclass
class Hunt:
    """Replicas that are killed, each by a supervisor of its own, and what else goes wrong besides."""

    replicas: Replicas
    services: list[KillableService]
    folder: Path

    async def run(
        self,
        receiver: Receiver,
        kills: int,
        *,
        on_kill: Callable[[], None] = lambda: None,
        trouble: Callable[[], Awaitable[None]] | None = None,
        far: int = FAR,
    ) -> Everyone:
        """Lives go on until the kills are spent and the trouble is over; then all is looked at."""
        rng, over, count = random.Random(SEED), asyncio.Event(), len(self.services)
        supervisors = [
            Noticed(service, kills // count + (n < kills % count), random.Random(SEED + n), far, on_kill)
            for n, service in enumerate(self.services)
        ]
        user, numbers = Everyone(self.services, receiver, self.folder), itertools.count()

        async def live() -> None:
            await one_life(user, next(numbers), rng)
            while not over.is_set():
                await one_life(user, next(numbers), rng)

        try:
            async with asyncio.TaskGroup() as tasks:
                supervising = [tasks.create_task(supervisor.run()) for supervisor in supervisors]
                await user.sign_in()
                living = [tasks.create_task(live()) for _ in range(LIVES_AT_ONCE)]
                if trouble is not None:
                    await trouble()
                for supervisor in supervisors:
                    await supervisor.spent.wait()
                over.set()
                await asyncio.gather(*living)
                await everything_is_told(user, receiver)
                await self.nothing_is_lost_or_doubled(user, receiver)
                for task in supervising:
                    task.cancel()
        except BaseException:
            print(f"kill points {[supervisor.points for supervisor in supervisors]}")
            print(self.replicas.logs())
            raise
        finally:
            for supervisor in supervisors:
                supervisor.stop()
        assert sum(len(supervisor.points) for supervisor in supervisors) == kills
        return user

    async def nothing_is_lost_or_doubled(self, user: Everyone, receiver: Receiver) -> None:
        assert not (self.folder / "locks" / "DOUBLED").exists(), "two workers of one deployment at once"
        listed = await user.deployments()
        assert Counter(d["deployment_id"] for d in listed) == Counter(user.accepted), (
            "accepted is what exists"
        )
        for deployment in listed:
            assert (deployment["status"], deployment["error"]) == ("deleted", None)
            id_ = deployment["deployment_id"]
            events = (await user.get(f"/v1/deployments/{id_}/events?limit=1000"))["items"]
            happened = Counter(event["type"] for event in events)
            for phase in PHASES:
                assert happened[f"deployment.{phase}"] <= 1, f"{phase} happened twice: {happened}"
            assert happened["deployment.deleted"] == 1
            told = receiver.ids(id_)
            assert all(len(ids) == 1 for ids in told.values()), (
                "a message has one id, however often it is sent"
            )
            assert {t for t in happened if t.removeprefix("deployment.") in PHASES} <= set(told), (
                "all arrived"
            )
        for bodies in receiver.bodies.values():
            assert len(set(bodies)) == 1, "the same message is the same, byte for byte"
        deadline = time.monotonic() + 15  # a stale create may still be being undone
        while left := self.endpoints():
            assert time.monotonic() < deadline, f"the provider still holds {left}"
            await asyncio.sleep(0.05)

    def endpoints(self) -> list[str]:
        return [path.name for path in (self.folder / "compute").glob("mrg-*")]


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """The test's own, which it stops and starts."""
    try:
        server = PostgresServer().__enter__()
    except PostgresMissing as missing:
        pytest.skip(f"no PostgreSQL: {missing}")
    yield server
    server.__exit__(None, None, None)


@pytest.fixture
def emulator() -> Iterator[FirestoreEmulator]:
    if not available():
        pytest.skip(MISSING)
    with FirestoreEmulator() as found:
        yield found


@pytest.fixture
async def hunt_on(tmp_path: Path, hub: str) -> AsyncIterator[Callable[[str, int], Hunt]]:
    """Makes replicas on a store, so many."""
    made: list[Replicas] = []

    def make(database: str, count: int) -> Hunt:
        replicas = Replicas(
            tmp_path,
            database,
            hub_url=hub,
            outbound_allow="127.0.0.1",
            bootstrap_user="owner",
            bootstrap_password=PASSWORD,
            lease_seconds=str(LEASE),
            managed_worker_command=f"{sys.executable} -S -E {HERE / 'stub_worker.py'}",
        )
        made.append(replicas)
        for folder in ("locks", "compute"):
            (tmp_path / folder).mkdir()
        datas = [tmp_path / f"replica-{number}" for number in range(count)]
        for data in datas:
            data.mkdir()
            (data / "managed").symlink_to(tmp_path / "compute")
        return Hunt(replicas, [replicas.make("isle", data) for data in datas], tmp_path)

    yield make
    for replicas in made:
        replicas.close()
    kill_all_of(tmp_path)


def kill_all_of(folder: Path) -> None:
    for pid in processes_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(900)
async def test_three_replicas_on_one_postgres_that_is_restarted_twice(
    postgres: PostgresServer, hunt_on: Callable[[str, int], Hunt], receiver: Receiver
) -> None:
    url = await asyncio.to_thread(postgres.new_database)
    hunt, takeovers = hunt_on(url, 3), Takeovers(url)

    async def restarts() -> None:
        for _ in range(2):
            await asyncio.sleep(2.0)
            await asyncio.to_thread(postgres.stop)
            await asyncio.sleep(1.0)
            await asyncio.to_thread(postgres.start)

    user = await hunt.run(receiver, KILLS, on_kill=takeovers.killed, trouble=restarts)
    print(f"\n{KILLS} kills, {len(user.accepted)} deployments, {user.inferred} inferences")
    print(f"{await takeovers.told()}, with leases of {LEASE:g} s")
    assert not processes_of(hunt.folder), "a process outlived its deployment and the services"


@pytest.mark.timeout(900)
async def test_two_replicas_on_firestore(
    emulator: FirestoreEmulator, hunt_on: Callable[[str, int], Hunt], receiver: Receiver
) -> None:
    kills = KILLS // 4
    hunt = hunt_on(emulator.new_database(), 2)
    user = await hunt.run(receiver, kills, far=2 * FAR)  # a start alone takes more steps
    print(f"\n{kills} kills, {len(user.accepted)} deployments, {user.inferred} inferences")
    assert not processes_of(hunt.folder), "a process outlived its deployment and the services"
