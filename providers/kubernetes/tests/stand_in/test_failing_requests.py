"""What goes wrong between a client and the server: lost answers, refusals, slowness, a server away."""

from __future__ import annotations

import aiohttp
import pytest
from kubernetes_asyncio import client

from moorage_kubernetes.testing import Kind, StandInCluster

from .asking import Api, deployment, ready, refused


async def test_a_lost_answer_was_done(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.lose_answers("PATCH */deployments/*")
    with pytest.raises(aiohttp.ClientError):
        await api.apply(deployment())
    await ready(cluster)
    assert cluster.requests[-1].status is None
    await api.apply(deployment())  # once
    assert len(cluster.objects("deployments")) == 1


async def test_a_lost_request_was_not(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.arm("*", Kind.LOSE_REQUEST)
    with pytest.raises(aiohttp.ClientError):
        await api.apply(deployment())
    assert cluster.objects("deployments") == []


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        (Kind.TOO_MANY, 429, "TooManyRequests"),
        (Kind.INTERNAL, 500, "InternalError"),
        (Kind.UNAVAILABLE, 503, "ServiceUnavailable"),
    ],
)
async def test_refusals(cluster: StandInCluster, api: Api, kind: Kind, code: int, reason: str) -> None:
    cluster.faults.arm("GET */pods", kind, times=2, seconds=3)
    for _ in range(2):
        status = await refused(api.core.list_namespaced_pod("default"))
        assert (status["code"], status["reason"]) == (code, reason)
    assert (await api.core.list_namespaced_pod("default")).items == []


async def test_too_many_says_when(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.arm("*", Kind.TOO_MANY, seconds=3)
    with pytest.raises(client.ApiException) as caught:
        await api.core.list_node()
    assert caught.value.headers["Retry-After"] == "3"
    assert '"retryAfterSeconds": 3' in caught.value.body


async def test_a_page_instead_of_a_status(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.arm("*", Kind.GATEWAY_TIMEOUT)
    with pytest.raises(client.ApiException) as caught:
        await api.core.list_node()
    assert caught.value.status == 504
    assert caught.value.body.startswith("<html>")


async def test_slow_answers(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.arm("*", Kind.SLOW, seconds=30)
    with pytest.raises(TimeoutError):
        await api.core.list_node(_request_timeout=0.05)


async def test_away_and_back(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment())
    await ready(cluster)
    await cluster.go_down()
    with pytest.raises(aiohttp.ClientError):
        await api.core.list_node()
    await cluster.come_up()
    assert (await api.apps.read_namespaced_deployment("web", "default")).status.ready_replicas == 1


async def test_the_log_of_requests(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment())
    [seen] = cluster.requests
    assert str(seen) == (
        "PATCH /apis/apps/v1/namespaces/default/deployments/web application/apply-patch+yaml"
    )
    assert (seen.query["fieldManager"], seen.query["force"]) == ("moorage", "True")
    assert cluster.token not in repr(seen)
