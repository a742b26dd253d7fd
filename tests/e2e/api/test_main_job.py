"""The main job over HTTP, from a create to nothing left."""

from __future__ import annotations

import asyncio
import http.client
import statistics
import time

import httpx

from .conftest import Api


async def test_a_deployment_from_create_to_deleted(api: Api) -> None:
    id_ = await api.deploy(name="digits")
    ready = await api.until(id_, "ready")
    assert ready["name"] == "digits"
    assert ready["provider"] == "fake"
    assert ready["gpu_allocated"] is None
    assert ready["replicas"] == {"desired": 1, "ready": 1}
    assert ready["endpoint_url"] == f"{api.url}/v1/models/{id_}/infer"
    assert ready["estimate"]["total_bytes"] == sum(i["bytes"] for i in ready["estimate"]["items"])
    assert {c["type"]: c["status"] for c in ready["conditions"]}["Serving"] == "true"
    assert (await api.owner.delete(f"/v1/deployments/{id_}")).status_code == 204
    assert (await api.owner.delete(f"/v1/deployments/{id_}")).status_code == 204, "repeating is safe"
    deleted = await api.until(id_, "deleted")
    assert deleted["endpoint_url"] is None
    assert not api.compute.endpoints


async def test_a_kept_connection_answers_without_nagles_delay(api: Api) -> None:
    """Clients that send head and body apart waited 40 ms for each answer when the socket did not say that it
    is TCP: asyncio then leaves Nagle's algorithm on."""

    def ask() -> list[float]:
        host = httpx.URL(api.url)
        connection = http.client.HTTPConnection(host.host, host.port or 80, timeout=10)
        seconds = []
        for _ in range(15):
            began = time.perf_counter()
            connection.request("POST", "/v1/deployments/plan", b"{}", {"content-type": "application/json"})
            connection.getresponse().read()
            seconds.append(time.perf_counter() - began)
        connection.close()
        return seconds

    assert statistics.median(await asyncio.to_thread(ask)) < 0.03
