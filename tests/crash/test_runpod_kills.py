"""The service is killed again and again while it has endpoints at RunPod, where answers get lost besides.

What is at RunPod bills, and RunPod would make a second endpoint of the same name without a word. Seeded like
`test_kills`; MOORAGE_CRASH_KILLS counts a fifth here.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moorage.testing.hub import HubStandIn
from moorage.testing.killing import KillableService
from moorage_runpod.testing import KEY, FakeRunPod
from tests.e2e.runpod.conftest import write_pipeline

from .conftest import Receiver
from .hunting import hunted
from .test_kills import Supervisor, User

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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_nothing_is_doubled_or_left_at_runpod(
    seed: int, on_runpod: KillableService, fake: FakeRunPod, receiver: Receiver, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    kills = KILLS // SEEDS + (1 if seed < KILLS % SEEDS else 0)
    supervisor = Supervisor(on_runpod, kills, rng, FAR)
    user = Tenant(on_runpod.url, receiver, tmp_path / "locks")
    number = await hunted(
        *(supervisor, on_runpod, user, receiver, rng),
        prepare=user.sign_in,
        trouble=lambda: trouble(fake, rng),
        left=lambda: [e.spec.name for e in fake.endpoints],
    )
    assert [name for name, times in fake.cloud.made.items() if times > 1] == [], "made twice"
    print(f"seed {seed}: {len(supervisor.points)} kills, {number} deployments, {fake.cloud.creates} creates")
    assert len(supervisor.points) == kills
