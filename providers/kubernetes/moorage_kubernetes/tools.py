"""What may be installed on a cluster and what it is found by. Pure.

Services have no standard name. What the usual charts and operators call them and label them with is one
table here. An address that the owner gave always stands; without one, the address of a service that was found
is its name within the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClusterTools:
    """What of it can be used. Addresses are URLs as pods see them. `dcgm`: the exporter of GPU metrics."""

    keda: bool = False
    metrics_server: bool = False
    prometheus: str | None = None
    rabbitmq: str | None = None
    redis: str | None = None
    gateway_api: bool = False
    envoy_gateway: bool = False
    dcgm: bool = False


@dataclass(frozen=True, slots=True)
class ServicePort:
    name: str | None
    number: int


@dataclass(frozen=True, slots=True)
class FoundService:
    """A Service of the cluster; `headless` ones name pods and balance nothing."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    ports: tuple[ServicePort, ...]
    headless: bool = False

    @property
    def version(self) -> str | None:
        return self.labels.get("app.kubernetes.io/version")

    def port(self, mark: Mark) -> int | None:
        """The one of the usual name or number."""
        for port in self.ports:
            if port.number == mark.port or port.name in mark.port_names:
                return port.number
        return None


@dataclass(frozen=True, slots=True)
class Mark:
    """What one kind of service is known by: values of the labels `app.kubernetes.io/name` and its elder
    kin, or whole names."""

    tool: str
    scheme: str
    port: int
    port_names: tuple[str, ...]
    label_values: tuple[str, ...]
    names: tuple[str, ...] = ()


MARKS = (
    Mark(
        "prometheus",
        "http",
        9090,
        ("http-web", "web", "http"),
        ("prometheus", "kube-prometheus-stack-prometheus"),
        ("prometheus", "prometheus-server", "prometheus-k8s", "prometheus-operated", "prometheus-service"),
    ),
    Mark("rabbitmq", "amqp", 5672, ("amqp",), ("rabbitmq",), ("rabbitmq",)),
    Mark(
        "redis",
        "redis",
        6379,
        ("redis", "tcp-redis"),
        ("redis", "valkey"),
        ("redis", "redis-master", "valkey"),
    ),
    Mark("keda", "https", 9666, ("metricsservice",), ("keda-operator",), ("keda-operator",)),
    Mark("metrics-server", "https", 443, ("https",), ("metrics-server",), ("metrics-server",)),
    Mark("envoy-gateway", "http", 18000, ("grpc",), ("gateway-helm",), ("envoy-gateway",)),
    Mark(
        "dcgm-exporter",
        "http",
        9400,
        ("metrics", "gpu-metrics"),
        ("dcgm-exporter",),
        ("dcgm-exporter", "nvidia-dcgm-exporter"),
    ),
)
_LABELS = ("app.kubernetes.io/name", "app.kubernetes.io/component", "app", "k8s-app", "component")
# Of the same charts, and something else.
_BESIDE = frozenset({"alertmanager", "node-exporter", "pushgateway", "kube-state-metrics", "operator"})
_BESIDE_COMPONENTS = frozenset({"metrics", "replica", "sentinel", "exporter", "alertmanager"})


def find_service(tool: str, services: Iterable[FoundService]) -> FoundService | None:
    """The service of a tool; of several, one that balances, and then the first by namespace and name."""
    mark = _mark(tool)
    found = [service for service in services if _is(service, mark)]
    return min(found, key=lambda s: (s.headless, s.port(mark) is None, s.namespace, s.name), default=None)


def address_of(tool: str, service: FoundService) -> str:
    """As pods of the cluster reach it."""
    mark = _mark(tool)
    number = service.port(mark) or (service.ports[0].number if service.ports else mark.port)
    return f"{mark.scheme}://{service.name}.{service.namespace}.svc:{number}"


def without_password(url: str) -> str:
    """Fit to be shown: an address that was given may hold a user and a password."""
    scheme, slashes, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if slashes else scheme.rpartition("@")[2]


def usable_tools(
    groups: Mapping[str, Sequence[str]],
    services: Sequence[FoundService],
    given: Mapping[str, str],
    *,
    metrics: bool,
) -> ClusterTools:
    """Out of the API groups (with their versions) and services of a cluster, and what its owner gave.
    `metrics`: whether the metrics API answers."""

    def address(tool: str) -> str | None:
        if given.get(f"{tool}_url"):
            return given[f"{tool}_url"]
        service = find_service(tool, services)
        return None if service is None else address_of(tool, service)

    return ClusterTools(
        keda="v1alpha1" in groups.get("keda.sh", ()),
        metrics_server=metrics,
        prometheus=address("prometheus"),
        rabbitmq=address("rabbitmq"),
        redis=address("redis"),
        gateway_api="v1" in groups.get("gateway.networking.k8s.io", ()),
        envoy_gateway="v1alpha1" in groups.get("gateway.envoyproxy.io", ()),
        dcgm=find_service("dcgm-exporter", services) is not None,
    )


def _mark(tool: str) -> Mark:
    return next(mark for mark in MARKS if mark.tool == tool)


def _is(service: FoundService, mark: Mark) -> bool:
    values = {service.labels[label] for label in _LABELS if label in service.labels}
    beside = values & _BESIDE or service.labels.get("app.kubernetes.io/component") in _BESIDE_COMPONENTS
    if beside:
        return False
    return service.name in mark.names or bool(values & set(mark.label_values))
