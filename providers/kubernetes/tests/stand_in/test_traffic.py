"""Requests to pods through the API server; their logs; pods that are real processes."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from moorage_kubernetes.testing import Command, StandInCluster, Start

from .asking import Api, Json, deployment, pod_where, ready, service

PROGRAM = str(Path(__file__).with_name("program.py"))


@pytest.fixture
async def http(cluster: StandInCluster) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=cluster.ca))
    headers = {"Authorization": f"Bearer {cluster.token}"}
    async with aiohttp.ClientSession(cluster.url, connector=connector, headers=headers) as one:
        yield one


def proxy(port: str = "80", scheme: str = "http:") -> str:
    return f"/api/v1/namespaces/default/services/{scheme}web:{port}/proxy"


async def served(cluster: StandInCluster, api: Api, count: int = 1) -> None:
    await api.apply(deployment(replicas=count))
    await api.core.create_namespaced_service("default", service())
    await ready(cluster, count=count)


async def test_a_service_reaches_its_pods(
    cluster: StandInCluster, api: Api, http: aiohttp.ClientSession
) -> None:
    await served(cluster, api, count=2)
    pods = set()
    for path in (proxy(), proxy("http"), proxy("80", scheme="")):
        async with http.post(f"{path}/v1/infer?a=1&a=%2F", json={"x": [1]}) as response:
            told = await response.json()
        assert (told["method"], told["path"], told["body"]) == ("POST", "/v1/infer", {"x": [1]})
        assert told["port"] == 8000
        assert "authorization" not in told["headers"]  # the server's own, not the pod's
        pods.add(told["pod"])
    assert len(pods) == 2


async def test_big_bodies_and_streams(cluster: StandInCluster, api: Api, http: aiohttp.ClientSession) -> None:
    await served(cluster, api)
    async with http.put(f"{proxy()}/put", data=b"x" * 5_000_000) as response:
        assert len((await response.json())["body"]) == 5_000_000
    gate = asyncio.Event()

    async def slowly(request: web.Request, pod: Json) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await gate.wait()
        await response.write(b"second")
        return response

    cluster.answer_with(slowly)
    async with http.get(f"{proxy()}/anything") as response:
        assert await response.content.readany() == b"first"  # before the pod has ended
        gate.set()
        assert await response.content.read() == b"second"


async def test_nobody_is_ready(cluster: StandInCluster, api: Api, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{proxy()}/health") as response:
        assert response.status == 404
    await served(cluster, api, count=0)
    async with http.get(f"{proxy()}/health") as response:
        status = await response.json()
    assert (status["code"], status["reason"]) == (503, "ServiceUnavailable")
    assert status["message"] == 'no endpoints available for service "http:web:80"'
    cluster.faults.readiness_probe = frozenset({"web"})
    await api.apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 1}})
    await pod_where(cluster, lambda pod: pod["status"]["phase"] == "Running")
    async with http.get(f"{proxy()}/health") as response:
        assert response.status == 503
    async with http.get(f"{proxy('81')}/health") as response:
        assert 'no service port "81" found' in (await response.json())["message"]


async def test_a_pod_by_name(cluster: StandInCluster, api: Api, http: aiohttp.ClientSession) -> None:
    await served(cluster, api)
    [pod] = cluster.objects("pods")
    name = pod["metadata"]["name"]
    async with http.get(f"/api/v1/namespaces/default/pods/{name}:8000/proxy/health") as response:
        assert await response.json() == {"status": "ok"}


async def test_a_pod_as_a_process(cluster: StandInCluster, api: Api, http: aiohttp.ClientSession) -> None:
    seen: list[Start] = []

    def command(start: Start) -> Command:
        seen.append(start)
        return Command([sys.executable, PROGRAM], {"EXTRA": "yes"})

    cluster.run_pods_with(command)
    await api.core.create_namespaced_secret("default", {"metadata": {"name": "s"}, "stringData": {"k": "v"}})
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)2"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    probe = {"httpGet": {"path": "/ready", "port": "http"}, "timeoutSeconds": 5}
    await api.apply(deployment(container={"env": env, "startupProbe": probe, "readinessProbe": probe}))
    await api.core.create_namespaced_service("default", service())
    await ready(cluster)
    async with http.get(f"{proxy()}/env") as response:
        told = await response.json(content_type=None)
    [pod] = cluster.objects("pods")
    assert {name: told[name] for name in ("A", "B", "SECRET", "POD", "EXTRA")} == {
        "A": "1",
        "B": "12",
        "SECRET": "v",
        "POD": pod["metadata"]["name"],
        "EXTRA": "yes",
    }
    assert told["PORT"] == str(seen[0].port)
    log = await api.core.read_namespaced_pod_log(pod["metadata"]["name"], "default")
    assert log.startswith("started\n")
    async with http.post(f"{proxy()}/exit") as response:
        await response.read()
    crashed = await pod_where(cluster, lambda p: p["status"]["containerStatuses"][0]["restartCount"] == 1)
    over = crashed["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert over["exitCode"] == 7
    await ready(cluster)


async def test_a_process_has_its_grace(cluster: StandInCluster, api: Api, tmp_path: Path) -> None:
    told = tmp_path / "told"
    cluster.run_pods_with(lambda _: Command([sys.executable, PROGRAM], {"TELL": str(told)}))
    body = deployment(terminationGracePeriodSeconds=20)
    await api.apply(body)
    await ready(cluster)
    await api.apps.delete_namespaced_deployment("web", "default")
    await cluster.came(lambda: not cluster.objects("pods"))
    assert told.read_text() == "ended well"


async def test_a_process_that_does_not_end_is_killed(
    cluster: StandInCluster, api: Api, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    env = {"TELL": str(told), "STUBBORN": "1"}
    cluster.run_pods_with(lambda _: Command([sys.executable, PROGRAM], env))
    await api.apply(deployment(terminationGracePeriodSeconds=0))
    await ready(cluster)
    await api.apps.delete_namespaced_deployment("web", "default")
    await cluster.came(lambda: not cluster.objects("pods"))
    assert not told.exists()


async def test_logs_are_followed(cluster: StandInCluster, api: Api, http: aiohttp.ClientSession) -> None:
    cluster.run_pods_with(lambda _: Command([sys.executable, PROGRAM]))
    await served(cluster, api)
    [pod] = cluster.objects("pods")
    path = f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}/log"
    async with http.get(path, params={"follow": "true", "timestamps": "true"}) as response:
        assert (await response.content.readline()).endswith(b"Z started\n")
        async with http.get(f"{proxy()}/env"):
            pass
        line = b""
        while b"GET /env" not in line:
            line = await response.content.readline()
            assert line
        await api.apps.delete_namespaced_deployment("web", "default")
        await response.content.read()  # it ends with the pod


async def test_no_log_yet(cluster: StandInCluster, api: Api, http: aiohttp.ClientSession) -> None:
    cluster.faults.failed_mount = frozenset({"web"})
    await api.apply(deployment())
    pod = await pod_where(cluster, lambda pod: pod["status"].get("containerStatuses"))
    async with http.get(f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}/log") as response:
        assert response.status == 400
        assert "is waiting to start: ContainerCreating" in (await response.json())["message"]
