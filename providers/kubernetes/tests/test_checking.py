"""A check tells what it found on a cluster, and of one that is broken as much as can be read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from moorage.domain.cluster import ClusterReport, GpuNode, Tool
from moorage.domain.workload import AccessMode
from moorage.errors import PermissionMissing, ProviderError
from moorage.ports.provider import Credentials
from moorage_kubernetes import checking, reading
from moorage_kubernetes.checking import check, tools_of
from moorage_kubernetes.client import ClusterClient
from moorage_kubernetes.gpus import MIB
from moorage_kubernetes.permissions import NEEDS
from moorage_kubernetes.testing import Kind, StandInCluster

from .hardware import L4

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
async def cluster() -> AsyncIterator[StandInCluster]:
    async with StandInCluster(add_ons=()) as running:
        yield running
        assert running.refused == []


@asynccontextmanager
async def reached(values: Mapping[str, str]) -> AsyncIterator[ClusterClient]:
    client = ClusterClient(Credentials(values), None)
    try:
        yield client
    finally:
        await client.aclose()


async def checked(cluster: StandInCluster, **values: str) -> ClusterReport:
    given = cluster.values(**values)
    async with reached(given) as client:
        return await check(client, given, NOW)


def service(
    called: str, namespace: str, port: int, *, named: str = "main", **labels: str
) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": called,
            "namespace": namespace,
            "labels": {f"app.kubernetes.io/{key}": value for key, value in labels.items()},
        },
        "spec": {"ports": [{"name": named, "port": port}]},
    }


def namespace(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


# -- a cluster that works ---------------------------------------------------------------------------------


async def test_a_bare_cluster(cluster: StandInCluster) -> None:
    report = await checked(cluster)
    assert (report.problem, report.reachable, report.version, report.checked_at) == (
        None,
        True,
        "v1.36.0",
        NOW,
    )
    assert len(report.grants) == sum(len(need.verbs) for need in NEEDS)
    assert all(grant.allowed for grant in report.grants)
    assert not any(tool.present for tool in report.tools)
    assert [tool.name for tool in report.tools] == [
        "metrics-server", "keda", "gateway-api", "envoy-gateway", "prometheus", "rabbitmq", "redis",
        "dcgm-exporter",
    ]  # fmt: skip
    assert report.gpu_nodes == ()
    assert any("KEDA is not installed" in warning for warning in report.warnings)


async def test_all_that_a_furnished_cluster_has(cluster: StandInCluster) -> None:
    cluster.install("keda", "metrics_server", "gateway_api", "envoy_gateway")
    cluster.add(namespace("tools"))
    cluster.add(service("prometheus-server", "tools", 80, named="http", name="prometheus", version="v3.7.1"))
    cluster.add(service("mq", "tools", 5672, named="amqp", name="rabbitmq"))
    cluster.add(service("redis-master", "tools", 6379, named="tcp-redis", name="redis"))
    cluster.add(service("keda-operator", "tools", 9666, named="metricsservice", version="2.20.2"))
    cluster.add(service("nvidia-dcgm-exporter", "tools", 9400, named="gpu-metrics"))
    cluster.add(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "eg"},
            "spec": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
        }
    )
    report = await checked(cluster)
    assert {tool.name for tool in report.tools if not tool.present} == set()
    assert report.tool("prometheus") == Tool(
        "prometheus", present=True, version="v3.7.1", address="http://prometheus-server.tools.svc:80"
    )
    assert report.tool("rabbitmq").address == "amqp://mq.tools.svc:5672"
    assert report.tool("redis").address == "redis://redis-master.tools.svc:6379"
    assert report.tool("keda").version == "2.20.2"
    assert report.gateway_classes == ("eg",)
    assert [w for w in report.warnings if "RabbitMQ" not in w] == []


async def test_addresses_that_were_given_stand_and_show_no_password(cluster: StandInCluster) -> None:
    given = {"rabbitmq_url": "amqp://me:s3cret@mq.example:5672", "prometheus_url": "http://prom.example"}
    report = await checked(cluster, **given)
    assert report.tool("rabbitmq") == Tool(
        "rabbitmq", present=True, address="amqp://mq.example:5672", detail="as given"
    )
    assert report.tool("prometheus").address == "http://prom.example"
    assert "s3cret" not in repr(report)


async def test_nodes_groups_and_what_pods_leave_free(cluster: StandInCluster) -> None:
    cluster.add_node("g1", {**L4, "cloud.google.com/gke-nodepool": "gpu"}, gpus=2)
    cluster.add_node("w1", {"kubernetes.io/os": "windows"})
    cluster.add(namespace("work"))
    cluster.add(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "busy", "namespace": "work"},
            "spec": {
                "nodeName": "g1",
                "containers": [
                    {"name": "c", "image": "acme/x", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
                ],
            },
        }
    )
    report = await checked(cluster)
    assert report.gpu_nodes == (GpuNode("g1", "NVIDIA-L4", 23034 * MIB, 2, 1),)
    (group,) = report.node_groups
    assert (group.name, group.selector) == ("gpu", {"cloud.google.com/gke-nodepool": "gpu"})
    assert "node w1 cannot be used: not Linux" in report.warnings
    assert any("no DCGM exporter" in warning for warning in report.warnings)


async def test_storage_classes_with_what_they_can_do(cluster: StandInCluster) -> None:
    cluster.add_storage_class("shared", provisioner="efs.csi.aws.com")
    report = await checked(cluster)
    shared = next(c for c in report.storage_classes if c.name == "shared")
    assert AccessMode.READ_WRITE_MANY in shared.access_modes


async def test_the_oldest_supported_version_has_no_remark() -> None:
    async with StandInCluster(version="1.34", add_ons=()) as cluster:
        assert not any("no more fixes" in w for w in (await checked(cluster)).warnings)


async def test_long_lists_are_read_page_by_page(
    cluster: StandInCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PAGE", 2)
    for index in range(5):
        cluster.add_node(f"g{index}", L4, gpus=1)
    assert len((await checked(cluster)).gpu_nodes) == 5
    monkeypatch.setattr(reading, "PAGES", 2)
    report = await checked(cluster)
    assert "could not be read: nodes: more than 4 objects" in report.warnings


# -- what may not be done ---------------------------------------------------------------------------------


async def test_a_permission_that_is_missing_is_named_with_what_it_is_for(cluster: StandInCluster) -> None:
    cluster.deny("create", "secrets")
    cluster.deny("*", "deployments.apps")
    refused = [grant for grant in (await checked(cluster)).grants if not grant.allowed]
    assert ("create", "secrets", "environment variables and registry access") in [
        (g.verb, g.resource, g.needed_for) for g in refused
    ]
    assert {g.resource for g in refused} == {"secrets", "deployments.apps"}


@pytest.mark.parametrize(
    ("resource", "told"),
    [
        ("nodes", "nodes: not allowed"),
        ("services", "services of all namespaces: not allowed"),
        ("pods", "pods of all namespaces: not allowed"),
        ("storageclasses.storage.k8s.io", "storage classes: not allowed"),
    ],
)
async def test_what_may_not_be_listed_takes_nothing_else_with_it(
    cluster: StandInCluster, resource: str, told: str
) -> None:
    cluster.add_node("g1", {**L4, "agentpool": "gpu"}, gpus=1)
    cluster.deny("list", resource)
    report = await checked(cluster)
    assert report.problem is None
    assert any(w.startswith(f"could not be read: {told}") for w in report.warnings)
    assert bool(report.gpu_nodes) == (resource != "nodes")
    assert bool(report.storage_classes) == (not resource.startswith("storage"))
    assert any("is taken for free" in w for w in report.warnings) == (resource == "pods")
    assert report.tool("redis").detail == (
        "services of all namespaces may not be listed" if resource == "services" else None
    )


async def test_a_version_that_is_kept_from_us_is_no_problem(
    cluster: StandInCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def kept(_: reading.Reader) -> str:
        raise PermissionMissing("only for the initiated")

    monkeypatch.setattr(reading, "version", kept)
    report = await checked(cluster)
    assert (report.problem, report.version) == (None, None)
    assert report.storage_classes
    assert "could not be read: version: not allowed (only for the initiated)" in report.warnings


# -- a cluster that does not --------------------------------------------------------------------------------


async def test_a_cluster_that_is_down_is_a_report_with_a_problem(cluster: StandInCluster) -> None:
    await cluster.go_down()
    report = await checked(cluster)
    assert report.problem
    assert not report.reachable
    assert (report.version, report.grants, report.tools) == (None, (), ())


async def test_credentials_that_are_refused_are_a_problem(cluster: StandInCluster) -> None:
    report = await checked(cluster, token="sesame")
    assert report.problem
    assert "sesame" not in repr(report)


async def test_a_certificate_that_ran_out_is_a_problem_that_says_so() -> None:
    async with StandInCluster(expired_certificate=True, add_ons=()) as cluster:
        report = await checked(cluster)
        assert report.problem
        assert "expired" in report.problem


async def test_a_cluster_that_hangs_is_a_problem(
    cluster: StandInCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "SECONDS", 0.2)
    cluster.faults.arm("GET /version*", Kind.SLOW, times=None, seconds=30)
    assert (await checked(cluster)).problem == "no answer within 0.2 seconds"


async def test_one_thing_that_hangs_takes_nothing_else_with_it(
    cluster: StandInCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "SECONDS", 2.0)
    cluster.faults.arm("GET /api/v1/nodes*", Kind.SLOW, times=None, seconds=30)
    report = await checked(cluster)
    assert "could not be read: nodes: no answer within 2 seconds" in report.warnings
    assert report.storage_classes
    assert all(grant.allowed for grant in report.grants)


@pytest.mark.parametrize("kind", [Kind.INTERNAL, Kind.UNAVAILABLE, Kind.GATEWAY_TIMEOUT, Kind.LOSE_ANSWER])
@pytest.mark.parametrize("route", ["*", "GET /apis*", "GET /api/v1/*", "POST *"])
async def test_a_cluster_that_fails_in_any_way_is_a_report(
    cluster: StandInCluster, route: str, kind: Kind
) -> None:
    cluster.faults.arm(route, kind, times=None)
    report = await checked(cluster)
    assert report.reachable == (route != "*")
    assert report.problem or any(w.startswith("could not be read: ") for w in report.warnings)


# -- tools alone -----------------------------------------------------------------------------------------


async def test_tools_are_read_with_a_few_requests(cluster: StandInCluster) -> None:
    cluster.install("keda", "metrics_server")
    async with reached(cluster.values()) as client:
        tools = await tools_of(client, {"redis_url": "redis://r"})
        assert (tools.keda, tools.metrics_server, tools.prometheus) == (True, True, None)
        assert tools.redis == "redis://r"
        assert len(cluster.requests) == 3
        cluster.uninstall("metrics_server")
        assert not (await tools_of(client, {})).metrics_server
        cluster.deny("list", "services")
        assert (await tools_of(client, {})).keda, "what may not be listed is as if it were not there"
        await cluster.go_down()
        with pytest.raises(ProviderError):
            await tools_of(client, {})
