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
LONG = 4  # of them, as many as there are consumers, take some seconds
SIDE = 4000  # pixels of a large image
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

    large = [digit(4, SIDE)] * 4
    long = await asyncio.gather(*(run(port, large) for _ in range(LONG)))
    await asyncio.gather(*(begun(port, job) for job in long))
    first, second = consumers(port)
    short = asyncio.gather(*(run(port, [digit(4)] * 4) for _ in range(JOBS - LONG)))
    await asyncio.gather(delete_pod(port, second, grace_period_seconds=0), delete_pod(port, first))
    jobs = await short
    for done in await asyncio.gather(*(over(port, job) for job in (*long, *jobs))):
        assert done["status"] == "COMPLETED", str(done.get("error"))[:600]
        assert [labels[0]["label"] for labels in done["output"]["outputs"]] == ["4"] * 4
    counts = (await port.ask("GET", "/v2/digits-async/health", 200))["jobs"]
    assert counts["completed"] == JOBS
    assert counts["retried"] == 2, "what the killed pod had in hand, and no more, ran twice"

    asked = {"input": {"inputs": digit(8)}}
    answer = await port.ask("POST", "/v2/digits-async/runsync", 200, json=asked)
    assert answer["output"]["outputs"][0]["label"] == "8", answer
    assert await traces(rabbitmq, redis, name) != []

    await port.ask("DELETE", path, 204)
    await port.until(path, "DELETED")
    assert port.left() == []
    assert await traces(rabbitmq, redis, name) == []


async def test_jobs_wait_while_all_consumers_sleep(workers: Port, servers: tuple[RabbitMQ, Redis]) -> None:
    port, (rabbitmq, redis) = workers, servers
    cluster = await port.import_cluster(rabbitmq_url=rabbitmq.url, redis_url=redis.url)
    scaling = {"targets": [{"metric": "queue_length", "target": 20}], "cooldown_period": 30}
    more = {"min_pod_replicas": 1, "scale_to_zero_enabled": True, "autoscale_config": scaling}
    created = await port.ask("POST", BYOC, 201, json=await body(port, cluster, **more))
    path = f"{BYOC}{created['uuid']}/"
    await port.until(path, "DEPLOYED")
    (scaled,) = port.cluster.objects("scaledobjects")
    name = scaled["metadata"]["name"]
    port.cluster.set_active(name, True)
    await port.cluster.came(lambda: "lastActiveTime" in port.cluster.objects("scaledobjects")[0]["status"])
    port.cluster.set_active(name, False)
    await port.cluster.came(lambda: consumers(port) == [] or None)

    job = await run(port, digit(4))
    status = f"/v2/digits-async/status/{job}"
    assert (await port.ask("GET", status, 200))["status"] == "IN_QUEUE"
    port.cluster.set_active(name, True)  # as KEDA sees by the length of the queue
    done = await over(port, job)
    assert done["output"]["outputs"][0]["label"] == "4", done
    await port.ask("DELETE", path, 204)
    await port.until(path, "DELETED")


async def test_while_its_front_is_away_no_job_is_said_not_to_be_there(
    workers: Port, servers: tuple[RabbitMQ, Redis]
) -> None:
    port, (rabbitmq, redis) = workers, servers
    cluster = await port.import_cluster(rabbitmq_url=rabbitmq.url, redis_url=redis.url)
    created = await port.ask("POST", BYOC, 201, json=await body(port, cluster, min_pod_replicas=1))
    path = f"{BYOC}{created['uuid']}/"
    await port.until(path, "DEPLOYED")
    job = await run(port, digit(4))
    status = f"/v2/digits-async/status/{job}"
    (front,) = port.cluster.objects("services")
    port.cluster.faults.readiness_probe = frozenset({f"{front['metadata']['name']}-front*"})
    codes: set[str | None] = set()
    async with asyncio.timeout(10):
        while "queue_unreachable" not in codes:
            answer = await port.user.get(status)
            assert answer.status_code in (200, 503), answer.text
            codes.add(answer.json().get("code"))
    assert codes <= {None, "provider_unreachable", "queue_unreachable"}, "what is between is not shown"
    port.cluster.faults.clear()
    assert (await over(port, job, meanwhile=503))["output"]["outputs"][0]["label"] == "4"
    await port.ask("DELETE", path, 204)
    await port.until(path, "DELETED")


def digit(number: int, side: int = 8) -> str:
    """A held-out image, enlarged to so many pixels."""
    with Image.open(DIGITS / "samples" / f"{number}.png") as image:
        large = image.resize((side, side), Image.Resampling.NEAREST)
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


async def run(port: Port, inputs: object) -> str:
    """The id of a job that was accepted."""
    asked = {"input": {"inputs": inputs, "parameters": {"top_k": 1}}}
    ticket = await port.ask("POST", "/v2/digits-async/run", 200, json=asked)
    return str(ticket["id"])


async def begun(port: Port, job: str) -> None:
    async with asyncio.timeout(15):
        while True:
            if (await state(port, job))["status"] != "IN_QUEUE":
                return
            await asyncio.sleep(0.02)


async def over(port: Port, job: str, *, meanwhile: int = 200) -> dict[str, Any]:
    """The job's document at its end; until then it may also be answered `meanwhile`."""
    async with asyncio.timeout(25):
        while True:
            found = await state(port, job, 200, meanwhile)
            if found["status"] not in ("IN_QUEUE", "IN_PROGRESS", meanwhile):
                return found
            await asyncio.sleep(0.05)


async def state(port: Port, job: str, *expected: int) -> dict[str, Any]:
    answer = await port.user.get(f"/v2/digits-async/status/{job}")
    assert answer.status_code in (expected or (200,)), answer.text
    found: dict[str, Any] = answer.json()
    return found
