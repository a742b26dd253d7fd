"""An asynchronous deployment from its create to nothing left: real workers, RabbitMQ and Redis, behind a
cluster whose pods are processes."""

from __future__ import annotations

import asyncio
import base64
import io
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any  # Any: JSON of the API

import pytest
from kubernetes_asyncio import client as kubernetes
from PIL import Image

from moorage.testing.hub import HubStandIn
from moorage_kubernetes.testing import Command, StandInCluster, Start

from .conftest import BYOC, Port, port_on

HARNESS = Path(__file__).parents[3] / "worker" / "tests"
sys.path.insert(0, str(HARNESS))

if TYPE_CHECKING:
    from worker_harness.queue_servers import RabbitMQ, Redis

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
MODEL = "moorage/digits"
JOBS = 50
SIDE = 2000  # pixels: enough to read for a job to be under way when its worker dies
CONSUMERS = "moorage.io/role=replica"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[RabbitMQ, Redis]]:
    from worker_harness import queue_servers

    if (name := queue_servers.missing()) is not None:
        pytest.skip(f"{name} is not installed")
    with queue_servers.rabbitmq_serving() as rabbitmq, queue_servers.redis_serving() as redis:
        yield rabbitmq, redis


@pytest.fixture
async def workers(tmp_path: Path, cluster: StandInCluster) -> AsyncIterator[Port]:
    """The service on a cluster whose pods run the worker, as their environment tells it to."""

    def run(wanted: Start) -> Command:
        # The folder is what /models is in the image.
        env = {"HF_HOME": str(tmp_path / "models"), "MOORAGE_WORKER_THREADS": "1"}
        return Command([sys.executable, "-m", "moorage_worker"], env)

    cluster.run_pods_with(run)
    async with HubStandIn() as hub:
        await hub.add_repo(MODEL, DIGITS)
        async with port_on(tmp_path / "var", cluster, hub_url=hub.url) as found:
            yield found
            assert found.left() == [], "nothing is left"


async def body(port: Port, cluster: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "model_repo": await port.import_model(MODEL),
        "name": "digits-async",
        "cluster": cluster["uuid"],
        "nodegroups": await port.node_groups(cluster["uuid"]),
        "gpu_request": 0,
        "cpu_request": 1,
        "cpu_limit": 2,
        "memory_request": 1,
        "memory_limit": 2,
        "min_pod_replicas": 2,
        "max_pod_replicas": 3,
        "autoscale_config": {"targets": [{"metric": "queue_length", "target": 20}]},
        "async_deployment_type": "ASYNC",
        "advanced_configuration": {
            "runtime_overrides": {"consumer_count": 2, "termination_grace_period_seconds": 10}
        },
        **more,
    }


async def test_no_job_is_lost_and_nothing_is_left(workers: Port, servers: tuple[RabbitMQ, Redis]) -> None:
    from worker_harness.queue_traces import traces

    port, (rabbitmq, redis) = workers, servers
    cluster = await port.import_cluster(rabbitmq_url=rabbitmq.url, redis_url=redis.url)
    created = await port.ask("POST", BYOC, 201, json=await body(port, cluster))
    path = f"{BYOC}{created['uuid']}/"
    await port.until(path, "DEPLOYED")
    (scaled,) = port.cluster.objects("scaledobjects")
    assert scaled["spec"]["triggers"][0]["type"] == "rabbitmq"
    name = scaled["metadata"]["name"]

    asked = {"input": {"inputs": digit(4), "parameters": {"top_k": 1}}}
    run = "/v2/digits-async/run"
    sent = await asyncio.gather(*(port.ask("POST", run, 200, json=asked) for _ in range(JOBS)))
    first, second = consumers(port)
    await delete_pod(port, first)
    await delete_pod(port, second, grace_period_seconds=0)
    for done in await asyncio.gather(*(over(port, ticket["id"]) for ticket in sent)):
        assert done["status"] == "COMPLETED", str(done.get("error"))[:600]
        assert done["output"]["outputs"][0]["label"] == "4"
    counts = (await port.ask("GET", "/v2/digits-async/health", 200))["jobs"]
    assert counts["completed"] == JOBS
    assert 1 <= counts["retried"] <= 2, "what the killed pod had in hand, and no more, ran twice"

    asked = {"input": {"inputs": digit(8)}}
    answer = await port.ask("POST", "/v2/digits-async/runsync", 200, json=asked)
    assert answer["output"]["outputs"][0]["label"] == "8", answer
    assert await traces(rabbitmq, redis, name) != []

    await port.ask("DELETE", path, 204)
    await port.until(path, "DELETED")
    assert port.left() == []
    assert await traces(rabbitmq, redis, name) == []


def digit(number: int) -> str:
    """A held-out image, enlarged."""
    with Image.open(DIGITS / "samples" / f"{number}.png") as image:
        large = image.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    content = io.BytesIO()
    large.save(content, "png")
    return base64.b64encode(content.getvalue()).decode()


def consumers(port: Port) -> list[str]:
    """Pods that are to stay."""
    key, _, role = CONSUMERS.partition("=")
    return [
        pod["metadata"]["name"]
        for pod in port.cluster.objects("pods")
        if pod["metadata"]["labels"].get(key) == role and "deletionTimestamp" not in pod["metadata"]
    ]


async def delete_pod(port: Port, name: str, **options: int) -> None:
    async with await port.cluster.api_client() as api:
        await kubernetes.CoreV1Api(api).delete_namespaced_pod(name, "moorage", **options)


async def over(port: Port, job: str) -> dict[str, Any]:
    async with asyncio.timeout(15):
        while True:
            found: dict[str, Any] = await port.ask("GET", f"/v2/digits-async/status/{job}", 200)
            if found["status"] not in ("IN_QUEUE", "IN_PROGRESS"):
                return found
            await asyncio.sleep(0.05)
