"""Looks over a cluster: what it is, what we may do there, what it has.

A check answers with what it could read, never with an error. Each thing is read beside the others and within
its own time, so that one that hangs or is forbidden takes nothing else with it; what could not be read is
said. Only where the cluster does not answer at all, or refuses the credentials, is there nothing but a
`problem`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar  # Any: the client's models are not typed

from moorage.domain.cluster import ClusterReport, Grant, Tool
from moorage.errors import PermissionMissing, ProviderError, Unauthorized
from moorage_kubernetes import permissions, reading, remarks
from moorage_kubernetes.groups import found_groups, gpu_nodes
from moorage_kubernetes.nodes import NodeState, node_states
from moorage_kubernetes.reading import Reader
from moorage_kubernetes.storage_classes import storage_classes
from moorage_kubernetes.tools import (
    ClusterTools,
    FoundService,
    find_service,
    usable_tools,
    without_password,
)

__all__ = ["ClusterTools", "check", "tools_of"]

SECONDS = 10.0  # for one thing to be read
REVIEWS_AT_ONCE = 8
GATEWAY_API = "gateway.networking.k8s.io"

T = TypeVar("T")


async def tools_of(client: Reader, values: Mapping[str, str]) -> ClusterTools:
    """What can be used there now. What may not be listed is as if it were not there, as long as its address
    was not given. Raises ProviderError when the cluster cannot be read."""
    groups = await reading.api_groups(client)
    services, metrics = await asyncio.gather(
        _attempt(reading.services(client), ()),
        _attempt(reading.metrics_answer(client), fallback=False),
    )
    return usable_tools(groups, services.value, values, metrics=metrics.value)


async def check(client: Reader, values: Mapping[str, str], now: datetime) -> ClusterReport:
    """`values` are those of the credential."""
    version = await _attempt(reading.version(client), None)
    if version.failure is not None and not version.forbidden:
        return _unreadable(version.failure, values, now)
    found = await _read_all(client)
    # A version is told to anybody. Whether we are somebody shows with the first thing that is not.
    if found.grants.refused and found.grants.failure is not None:
        return _unreadable(found.grants.failure, values, now)
    return _report(version, found, values, now)


def _unreadable(reason: str, values: Mapping[str, str], now: datetime) -> ClusterReport:
    return ClusterReport(now, problem="; ".join((reason, *remarks.credential_remarks(values, now))))


# -- reading, each thing for itself -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attempt(Generic[T]):
    """What was read, or why it was not: `forbidden` to us, or the credentials `refused`."""

    value: T
    failure: str | None = None
    forbidden: bool = False
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    grants: Attempt[tuple[Grant, ...]]
    groups: Attempt[dict[str, tuple[str, ...]]]
    metrics: Attempt[bool]
    services: Attempt[tuple[FoundService, ...]]
    nodes: Attempt[list[Any]]
    pods: Attempt[list[Any]]
    storage: Attempt[list[Any]]
    gateway_classes: Attempt[tuple[str, ...]]

    def failures(self) -> Iterator[str]:
        """Of what every cluster has."""
        named: dict[str, Attempt[Any]] = {
            "permissions": self.grants,
            "API groups": self.groups,
            "services of all namespaces": self.services,
            "nodes": self.nodes,
            "pods of all namespaces": self.pods,
            "storage classes": self.storage,
        }
        if GATEWAY_API in self.groups.value:
            named["gateway classes"] = self.gateway_classes
        return (f"{what}: {attempt.failure}" for what, attempt in named.items() if attempt.failure)


async def _read_all(client: Reader) -> Findings:
    async with asyncio.TaskGroup() as tasks:
        grants = tasks.create_task(_attempt(_grants(client), ()))
        groups = tasks.create_task(_attempt(reading.api_groups(client), {}))
        metrics = tasks.create_task(_attempt(reading.metrics_answer(client), fallback=False))
        services = tasks.create_task(_attempt(reading.services(client), ()))
        nodes = tasks.create_task(_attempt(reading.nodes(client), []))
        pods = tasks.create_task(_attempt(reading.living_pods(client), []))
        storage = tasks.create_task(_attempt(reading.storage_classes(client), []))
        classes = tasks.create_task(_attempt(reading.gateway_classes(client), ()))
    return Findings(
        grants.result(),
        groups.result(),
        metrics.result(),
        services.result(),
        nodes.result(),
        pods.result(),
        storage.result(),
        classes.result(),
    )


async def _attempt(awaited: Awaitable[T], fallback: T) -> Attempt[T]:
    """Any answer at all may come from what calls itself a cluster, and must not take the check down."""
    try:
        async with asyncio.timeout(SECONDS):
            return Attempt(await awaited)
    except TimeoutError:
        return Attempt(fallback, f"no answer within {SECONDS:g} seconds")
    except PermissionMissing as error:
        return Attempt(fallback, f"not allowed ({error.detail})", forbidden=True)
    except ProviderError as error:
        words = ": ".join(filter(None, (error.detail, error.advice)))
        return Attempt(fallback, words, refused=isinstance(error, Unauthorized))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        return Attempt(fallback, f"not the answer of a Kubernetes API ({type(error).__name__})")


async def _grants(client: Reader) -> tuple[Grant, ...]:
    turns = asyncio.Semaphore(REVIEWS_AT_ONCE)

    async def grant(need: permissions.Need, verb: str, attributes: Mapping[str, str]) -> Grant:
        async with turns:
            allowed = await reading.allowed(client, attributes)
        return Grant(verb, need.name, allowed, need.needed_for)

    return tuple(await asyncio.gather(*(grant(*each) for each in permissions.asked(client.namespace))))


# -- the report -------------------------------------------------------------------------------------------


def _report(
    version: Attempt[str | None], found: Findings, values: Mapping[str, str], now: datetime
) -> ClusterReport:
    tools = usable_tools(found.groups.value, found.services.value, values, metrics=found.metrics.value)
    nodes = node_states(found.nodes.value, found.pods.value)
    classes = storage_classes(found.storage.value)
    with_gpus = gpu_nodes(nodes)
    return ClusterReport(
        checked_at=now,
        version=version.value,
        grants=found.grants.value,
        storage_classes=classes,
        tools=tuple(_tools(tools, found, values)),
        gateway_classes=found.gateway_classes.value,
        gpu_nodes=with_gpus,
        node_groups=found_groups(nodes),
        warnings=(
            *_version_remarks(version),
            *remarks.credential_remarks(values, now),
            *(f"could not be read: {failure}" for failure in found.failures()),
            *_node_remarks(found, nodes),
            *(remarks.storage_remarks(classes) if found.storage.failure is None else ()),
            *remarks.tool_remarks(tools, with_gpus, values),
        ),
    )


def _version_remarks(version: Attempt[str | None]) -> Iterator[str]:
    if version.value is None:
        yield f"could not be read: version: {version.failure}"
    else:
        yield from remarks.version_remarks(version.value)


def _node_remarks(found: Findings, nodes: tuple[NodeState, ...]) -> Iterator[str]:
    yield from remarks.node_remarks(nodes, found.nodes.value)
    if found.nodes.failure is None and not nodes:
        yield "the cluster has no nodes: pods will stay pending until there are some"
    if found.pods.failure is not None and nodes:
        yield "what is free on the nodes is not known: all that they have is taken for free"


def _tools(tools: ClusterTools, found: Findings, given: Mapping[str, str]) -> Iterator[Tool]:
    services = found.services.value
    unseen = "services of all namespaces may not be listed" if found.services.failure else None

    def version_of(tool: str) -> str | None:
        service = find_service(tool, services)
        return None if service is None else service.version

    for name, present in (
        ("metrics-server", tools.metrics_server),
        ("keda", tools.keda),
        ("gateway-api", tools.gateway_api),
        ("envoy-gateway", tools.envoy_gateway),
    ):
        detail = found.metrics.failure if name == "metrics-server" else None
        yield Tool(name, present, version_of(name) if name != "gateway-api" else None, detail=detail)
    for name, address in (
        ("prometheus", tools.prometheus),
        ("rabbitmq", tools.rabbitmq),
        ("redis", tools.redis),
    ):
        is_given = bool(given.get(f"{name}_url"))
        yield Tool(
            name,
            address is not None,
            None if is_given else version_of(name),
            None if address is None else without_password(address),
            "as given" if is_given else unseen,
        )
    yield Tool("dcgm-exporter", tools.dcgm, version_of("dcgm-exporter"), detail=unseen)
