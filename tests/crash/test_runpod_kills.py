"""The service is killed again and again while it has endpoints at RunPod, where answers get lost besides.

What is at RunPod bills, and RunPod would make a second endpoint of the same name without a word. Seeded like
`test_kills`; MOORAGE_CRASH_KILLS counts a fifth here.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moorage.testing.hub import HubStandIn
from moorage.testing.killing import KillableService
from moorage_runpod.testing import KEY, FakeRunPod
from tests.e2e.runpod.conftest import write_pipeline

from .conftest import Receiver
from .test_kills import PHASES, Supervisor, User, everything_is_told

KILLS = int(os.environ.get("MOORAGE_CRASH_KILLS", "200")) // 5
SEEDS = 4
FAR = 700  # steps: beyond what a start, a deployment's life on RunPod and its messages take
MODEL = "acme/tiny-painter"
ROUTES = ("POST /v2/serverless", "DELETE /v2/serverless/*", "GET /v2/serverless*", "POST */run")

pytestmark = pytest.mark.crash


class Tenant(User):
    """With RunPod's own key in the place of an account here."""

    async def sign_in(self) -> None:
        self._http.headers["authorization"] = f"Bearer {KEY}"

    def body(self, number: int) -> dict[str, object]:
        return {"hf_model_id": MODEL, "user_webhook_url": self._hook}


@pytest.fixture
async def fake() -> AsyncIterator[FakeRunPod]:
    async with FakeRunPod() as found:
        yield found
        assert [(r.name, r.errors) for r in found.invalid_requests] == []


@pytest.fixture
async def on_runpod(
    service: KillableService, fake: FakeRunPod, tmp_path: Path
) -> AsyncIterator[KillableService]:
    async with HubStandIn() as hub:
        await hub.add_repo(MODEL, write_pipeline(tmp_path / "painter"))
        service.environ |= {
            "MOORAGE_HUB_URL": hub.url,
            "MOORAGE_RUNPOD_API_URL": fake.api_url,
            "MOORAGE_RUNPOD_CAPACITY_SECONDS": "30",
            "MOORAGE_RUNPOD_LIST_LAG_SECONDS": "0.1",
            "MOORAGE_LOADING_LOOK_SECONDS": "0.1",
        }
        yield service


async def trouble(fake: FakeRunPod, rng: random.Random) -> None:
    """Loses an answer now and then, before or after what was asked for has been done; one at a time."""
    while True:
        await asyncio.sleep(rng.random() * 0.5)
        if any(fault.times for fault in fake.faults.routes):
            continue
        route = rng.choice(ROUTES)
        fake.faults.routes = ()
        fake.faults.arm(route, rng.choice(["lost_answer", "lost_request", "truncated", "bad_gateway"]))


async def one_life(user: Tenant, number: int, rng: random.Random) -> None:
    id_ = await user.create(number)
    if rng.random() < 0.7:
        await user.until(id_, "ready", "failed")
    else:
        await asyncio.sleep(rng.random() * 0.5)
    await user.delete(id_)
    await user.until(id_, "deleted")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_nothing_is_doubled_or_left_at_runpod(
    seed: int, on_runpod: KillableService, fake: FakeRunPod, receiver: Receiver, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    kills = KILLS // SEEDS + (1 if seed < KILLS % SEEDS else 0)
    supervisor = Supervisor(on_runpod, kills, rng, FAR)
    supervising = asyncio.create_task(supervisor.run())
    losing = asyncio.create_task(trouble(fake, rng))
    user = Tenant(on_runpod.url, receiver, tmp_path / "locks")
    try:
        await user.sign_in()
        number = await supervisor.outlived(supervising, lambda number: one_life(user, number, rng))
        await everything_is_told(user, receiver)
        await nothing_is_left(user, fake)
    except BaseException:
        print(f"seed {seed}, kill points {supervisor.points}")
        print(on_runpod.log.read_text()[-6000:] if on_runpod.log.exists() else "no log")
        raise
    finally:
        losing.cancel()
        supervising.cancel()
        supervisor.stop()
    print(f"seed {seed}: {len(supervisor.points)} kills, {number} deployments, {fake.cloud.creates} creates")
    assert len(supervisor.points) == kills


async def nothing_is_left(user: Tenant, fake: FakeRunPod) -> None:
    listed = await user.get("/v1/deployments?limit=200")
    assert {d["deployment_id"] for d in listed["items"]} == set(user.accepted), "accepted is what exists"
    for deployment in listed["items"]:
        assert (deployment["status"], deployment["error"]) == ("deleted", None)
        path = f"/v1/deployments/{deployment['deployment_id']}/events?limit=1000"
        happened = Counter(event["type"] for event in (await user.get(path))["items"])
        for phase in PHASES:
            assert happened[f"deployment.{phase}"] <= 1, f"{phase} happened twice: {happened}"
    assert [name for name, times in fake.cloud.made.items() if times > 1] == [], "made twice"
    deadline = time.monotonic() + 10  # a stale create may still be being undone
    while fake.endpoints:
        assert time.monotonic() < deadline, f"RunPod still holds {[e.spec.name for e in fake.endpoints]}"
        await asyncio.sleep(0.05)
