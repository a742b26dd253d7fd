"""The service is killed again and again while it has deployments on a cluster that loses answers besides.

Half of the objects may be there when it dies, or all of them without anybody knowing. Seeded like
`test_kills`; MOORAGE_CRASH_KILLS counts a tenth here.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any  # JSON of the cluster

import pytest

from moorage.testing.killing import KillableService
from moorage_kubernetes.testing import Kind, StandInCluster

from .conftest import Receiver
from .hunting import hunted
from .test_kills import Supervisor, User

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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_nothing_is_doubled_or_left_on_the_cluster(
    seed: int, on_cluster: KillableService, cluster: StandInCluster, receiver: Receiver, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    kills = KILLS // SEEDS + (1 if seed < KILLS % SEEDS else 0)
    supervisor = Supervisor(on_cluster, kills, rng, FAR)
    user = Importer(on_cluster.url, receiver, tmp_path / "locks")

    async def prepare() -> None:
        await user.sign_in()
        await user.bring(cluster)

    number = await hunted(
        *(supervisor, on_cluster, user, receiver, rng),
        prepare=prepare,
        trouble=lambda: trouble(cluster, rng),
        left=lambda: ours(cluster),
    )
    print(f"seed {seed}: {len(supervisor.points)} kills, {number} deployments")
    assert len(supervisor.points) == kills


def ours(cluster: StandInCluster) -> list[str]:
    found: list[tuple[str, dict[str, Any]]] = [(k, o) for k in KINDS for o in cluster.objects(k)]
    return [
        f"{kind}/{o['metadata']['name']}"
        for kind, o in found
        if o["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "moorage"
    ]
