"""Tools are found by what charts and operators call them, and never mistaken for what stands beside them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_kubernetes.tools import (
    MARKS,
    FoundService,
    ServicePort,
    address_of,
    find_service,
    usable_tools,
    without_password,
)

NAME = "app.kubernetes.io/name"


def service(
    name: str, *ports: tuple[str | None, int], namespace: str = "tools", **more: object
) -> FoundService:
    labels = more.pop("labels", {})
    assert isinstance(labels, dict)
    return FoundService(name, namespace, labels, tuple(ServicePort(*p) for p in ports), headless=bool(more))


def address(tool: str, *services: FoundService) -> str | None:
    found = find_service(tool, services)
    return None if found is None else address_of(tool, found)


@pytest.mark.parametrize(
    ("tool", "found", "url"),
    [
        ("prometheus", service("prometheus-server", ("http", 80)), "http://prometheus-server.tools.svc:80"),
        (
            "prometheus",
            service("kps-prometheus", ("http-web", 9090), labels={"app": "kube-prometheus-stack-prometheus"}),
            "http://kps-prometheus.tools.svc:9090",
        ),
        ("prometheus", service("prometheus-k8s", ("web", 9090)), "http://prometheus-k8s.tools.svc:9090"),
        (
            "rabbitmq",
            service(
                "q", ("http-stats", 15672), ("amqp", 5672), labels={"app.kubernetes.io/component": "rabbitmq"}
            ),
            "amqp://q.tools.svc:5672",
        ),
        ("redis", service("redis-master", ("tcp-redis", 6379)), "redis://redis-master.tools.svc:6379"),
        ("redis", service("cache", ("redis", 6380), labels={NAME: "valkey"}), "redis://cache.tools.svc:6380"),
    ],
)
def test_each_tool_is_found_with_its_address(tool: str, found: FoundService, url: str) -> None:
    other = service("web", ("http", 80), labels={NAME: "shop"})
    assert address(tool, other, found) == url


@pytest.mark.parametrize(
    ("tool", "beside"),
    [
        ("prometheus", service("alertmanager", ("web", 9093), labels={NAME: "alertmanager"})),
        (
            "prometheus",
            service("prometheus-node-exporter", ("metrics", 9100), labels={NAME: "node-exporter"}),
        ),
        (
            "redis",
            service(
                "redis-metrics",
                ("http", 9121),
                labels={NAME: "redis", "app.kubernetes.io/component": "metrics"},
            ),
        ),
        (
            "redis",
            service(
                "redis-replicas",
                ("redis", 6379),
                labels={NAME: "redis", "app.kubernetes.io/component": "replica"},
            ),
        ),
    ],
)
def test_what_stands_beside_a_tool_is_not_the_tool(tool: str, beside: FoundService) -> None:
    assert address(tool, beside) is None


def test_of_several_the_one_that_balances_is_taken() -> None:
    labels = {NAME: "rabbitmq"}
    headless = service("a-headless", ("amqp", 5672), labels=labels, headless=True)
    balancing = service("b", ("amqp", 5672), labels=labels)
    metrics = service("a-metrics", ("prometheus", 15692), labels=labels)
    assert address("rabbitmq", headless, metrics, balancing) == "amqp://b.tools.svc:5672"


def test_what_was_given_stands_before_what_was_found() -> None:
    found = [service("redis-master", ("redis", 6379)), service("rabbitmq", ("amqp", 5672))]
    tools = usable_tools({}, found, {"redis_url": "rediss://mine:6379", "rabbitmq_url": ""}, metrics=False)
    assert tools.redis == "rediss://mine:6379"
    assert tools.rabbitmq == "amqp://rabbitmq.tools.svc:5672"
    assert tools.prometheus is None


def test_add_ons_are_known_by_their_api() -> None:
    groups = {
        "keda.sh": ("v1alpha1",),
        "gateway.networking.k8s.io": ("v1", "v1beta1"),
        "gateway.envoyproxy.io": ("v1alpha1",),
    }
    tools = usable_tools(groups, [], {}, metrics=True)
    assert (tools.keda, tools.gateway_api, tools.envoy_gateway, tools.metrics_server) == (True,) * 4
    old = usable_tools({"gateway.networking.k8s.io": ("v1beta1",)}, [], {}, metrics=False)
    assert not any((old.keda, old.gateway_api, old.envoy_gateway, old.metrics_server, old.dcgm))
    assert usable_tools({}, [service("nvidia-dcgm-exporter")], {}, metrics=False).dcgm


def test_an_address_is_shown_without_its_password() -> None:
    assert without_password("amqp://me:s3cr@et@mq.example:5672/v") == "amqp://mq.example:5672/v"
    assert without_password("redis://mine:6379") == "redis://mine:6379"
    assert without_password("redis://mine/0?password=s3cret") == "redis://mine/0"
    assert without_password("me:s3cret@mq") == "mq"


PORTS = st.lists(
    st.builds(ServicePort, st.none() | st.sampled_from(["http", "amqp"]), st.integers(1, 65535))
).map(tuple)


@given(
    st.lists(
        st.builds(
            FoundService,
            st.sampled_from([*(n for mark in MARKS for n in mark.names), "shop"]),
            st.sampled_from(["a", "b"]),
            st.dictionaries(st.sampled_from([NAME, "app"]), st.sampled_from(["prometheus", "redis", "shop"])),
            PORTS,
            st.booleans(),
        )
    )
)
def test_the_choice_does_not_depend_on_the_order_of_a_list(services: list[FoundService]) -> None:
    for mark in MARKS:
        first, last = find_service(mark.tool, services), find_service(mark.tool, reversed(services))
        assert (first is None) == (last is None)
        if first is not None and last is not None:
            assert (first.namespace, first.name) == (last.namespace, last.name)
