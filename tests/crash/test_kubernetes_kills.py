"""The service is killed again and again while it has deployments on a cluster that loses answers besides.

Half of the objects may be there when it dies, or all of them without anybody knowing. Seeded like
`test_kills`; MOORAGE_CRASH_KILLS counts a tenth here.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any  # JSON of the cluster

import pytest

from moorage.testing.killing import KillableService
from moorage_kubernetes.testing import Kind, StandInCluster

from .conftest import Receiver
from .test_kills import PHASES, Supervisor, User, everything_is_told

KILLS = int(os.environ.get("MOORAGE_CRASH_KILLS", "200")) // 10
SEEDS = 4
FAR = 900  # steps: beyond what a start, a deployment's life on a cluster and its messages take
ROUTES = ("PATCH *", "DELETE *", "GET *", "POST *")
KINDS = ("deployments", "services", "pods", "secrets", "persistentvolumeclaims", "poddisruptionbudgets")

ONCE = {"access_mode": "ReadWriteOnce"}

pytestmark = pytest.mark.crash


class Importer(User):
    """Deploys a container with a volume, on the one cluster that it imported."""

    cluster = ""

    async def bring(self, cluster: StandInCluster) -> None:
        body = {"name": "ours", "kubeconfig": cluster.kubeconfig()}
        key = {"idempotency-key": "import"}
        answer = await self._insist(lambda: self._http.post("/clusters/", json=body, headers=key))
        assert answer.status_code == 201, answer.text
        self.cluster = answer.json()["uuid"]

    def body(self, number: int) -> dict[str, object]:
        return {
            "container_image": "registry.example.com/acme/echo:1",
            "cluster": self.cluster,
            "user_webhook_url": self._hook,
            "workload": {
                "ports": {"http": 8000},
                "health": {"path": "/health", "port": 8000, "initial_delay": 0, "period": 1},
                "volumes": [{"name": f"data-{number}", "mount_path": "/data", "size": "1Gi", **ONCE}],
            },
        }


@pytest.fixture
async def cluster() -> AsyncIterator[StandInCluster]:
    async with StandInCluster() as found:
        found.add_node("pool-1", {"cloud.google.com/gke-nodepool": "pool"}, cpu=64, memory_gib=256)
        yield found
        assert found.refused == [], "every object that was sent is valid"


@pytest.fixture
def on_cluster(service: KillableService) -> KillableService:
    service.environ |= {"MOORAGE_LOADING_LOOK_SECONDS": "0.1"}
    return service


async def trouble(cluster: StandInCluster, rng: random.Random) -> None:
    """Loses an answer now and then, before or after what was asked for has been done; one at a time."""
    while True:
        await asyncio.sleep(rng.random() * 0.5)
        if any(fault.times for fault in cluster.faults.requests):
            continue
        cluster.faults.requests = ()
        kinds = [Kind.LOSE_ANSWER, Kind.LOSE_REQUEST, Kind.UNAVAILABLE]
        cluster.faults.arm(rng.choice(ROUTES), rng.choice(kinds))


async def one_life(user: Importer, number: int, rng: random.Random) -> None:
    id_ = await user.create(number)
    if rng.random() < 0.7:
        await user.until(id_, "ready", "failed")
    else:
        await asyncio.sleep(rng.random() * 0.5)
    await user.delete(id_)
    await user.until(id_, "deleted")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_nothing_is_doubled_or_left_on_the_cluster(
    seed: int, on_cluster: KillableService, cluster: StandInCluster, receiver: Receiver, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    kills = KILLS // SEEDS + (1 if seed < KILLS % SEEDS else 0)
    supervisor = Supervisor(on_cluster, kills, rng, FAR)
    supervising = asyncio.create_task(supervisor.run())
    user = Importer(on_cluster.url, receiver, tmp_path / "locks")
    losing: asyncio.Task[None] | None = None
    try:
        await user.sign_in()
        await user.bring(cluster)
        losing = asyncio.create_task(trouble(cluster, rng))
        number = await supervisor.outlived(supervising, lambda number: one_life(user, number, rng))
        await everything_is_told(user, receiver)
        await nothing_is_left(user, cluster)
    except BaseException:
        print(f"seed {seed}, kill points {supervisor.points}")
        print(on_cluster.log.read_text()[-6000:] if on_cluster.log.exists() else "no log")
        raise
    finally:
        if losing is not None:
            losing.cancel()
        supervising.cancel()
        supervisor.stop()
    print(f"seed {seed}: {len(supervisor.points)} kills, {number} deployments")
    assert len(supervisor.points) == kills


async def nothing_is_left(user: Importer, cluster: StandInCluster) -> None:
    listed = await user.get("/v1/deployments?limit=200")
    assert {d["deployment_id"] for d in listed["items"]} == set(user.accepted), "accepted is what exists"
    for deployment in listed["items"]:
        assert (deployment["status"], deployment["error"]) == ("deleted", None)
        path = f"/v1/deployments/{deployment['deployment_id']}/events?limit=1000"
        happened = Counter(event["type"] for event in (await user.get(path))["items"])
        for phase in PHASES:
            assert happened[f"deployment.{phase}"] <= 1, f"{phase} happened twice: {happened}"
    deadline = time.monotonic() + 10  # a stale create may still be being undone
    while left := ours(cluster):
        assert time.monotonic() < deadline, f"the cluster still holds {left}"
        await asyncio.sleep(0.05)


def ours(cluster: StandInCluster) -> list[str]:
    found: list[tuple[str, dict[str, Any]]] = [(k, o) for k in KINDS for o in cluster.objects(k)]
    return [
        f"{kind}/{o['metadata']['name']}"
        for kind, o in found
        if o["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "moorage"
    ]
