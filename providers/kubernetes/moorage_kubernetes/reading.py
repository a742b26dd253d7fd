"""Reads what a check needs from a cluster: one function for each thing, page by page where it may be long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar  # Any: the client's APIs and models are not typed

from kubernetes_asyncio.client import ApisApi, models

from moorage.errors import Gone, ProviderError
from moorage_kubernetes.tools import FoundService, ServicePort

T = TypeVar("T")

PAGE = 500
PAGES = 40  # of what is listed in all namespaces: 20,000 objects tell enough
LIVING_PODS = "status.phase!=Succeeded,status.phase!=Failed"


class Reader(Protocol):
    """What reading needs of a cluster's client: its typed APIs, and a way to call them whose errors are
    ProviderErrors."""

    api: Any
    core: Any
    storage: Any
    custom: Any
    version: Any
    authorization: Any
    namespace: str

    async def call(self, request: Callable[[], Awaitable[T]], /) -> T: ...


async def version(client: Reader) -> str:
    """As the API server writes it: `v1.36.1`."""
    code = await client.call(lambda: client.version.get_code())
    return str(code.git_version)


async def api_groups(client: Reader) -> dict[str, tuple[str, ...]]:
    """Names of API groups with their versions."""
    found = await client.call(lambda: ApisApi(client.api).get_api_versions())
    return {group.name: tuple(v.version for v in group.versions) for group in found.groups}


async def metrics_answer(client: Reader) -> bool:
    """Whether the metrics API is registered and answers; it is served by a program that may be down."""
    try:
        await client.call(lambda: client.custom.get_api_resources("metrics.k8s.io", "v1beta1"))
    except Gone:
        return False
    return True


async def services(client: Reader) -> tuple[FoundService, ...]:
    found = await pages(client, client.core.list_service_for_all_namespaces)
    return tuple(
        FoundService(
            name=each.metadata.name,
            namespace=each.metadata.namespace,
            labels=dict(each.metadata.labels or {}),
            ports=tuple(ServicePort(p.name, p.port) for p in each.spec.ports or ()),
            headless=each.spec.cluster_ip == "None",
        )
        for each in found
    )


async def nodes(client: Reader) -> list[Any]:
    return await pages(client, client.core.list_node)


async def living_pods(client: Reader) -> list[Any]:
    """Of all namespaces."""
    return await pages(client, client.core.list_pod_for_all_namespaces, field_selector=LIVING_PODS)


async def storage_classes(client: Reader) -> list[Any]:
    return await pages(client, client.storage.list_storage_class)


async def gateway_classes(client: Reader) -> tuple[str, ...]:
    found = await client.call(
        lambda: client.custom.list_cluster_custom_object("gateway.networking.k8s.io", "v1", "gatewayclasses")
    )
    return tuple(sorted(each["metadata"]["name"] for each in found["items"]))


async def allowed(client: Reader, attributes: Mapping[str, str]) -> bool:
    """Whether our account may do that, by the cluster's own word."""
    review = models.V1SelfSubjectAccessReview(
        spec=models.V1SelfSubjectAccessReviewSpec(
            resource_attributes=models.V1ResourceAttributes(**attributes)
        )
    )
    answer = await client.call(lambda: client.authorization.create_self_subject_access_review(review))
    return bool(answer.status.allowed)


async def pages(client: Reader, method: Callable[..., Awaitable[Any]], **selectors: str) -> list[Any]:
    """All items of a list. A cluster that changed too much between pages is read again from the start."""
    try:
        return await _pages(client, method, selectors)
    except Gone:
        return await _pages(client, method, selectors)


async def _pages(
    client: Reader, method: Callable[..., Awaitable[Any]], selectors: Mapping[str, str]
) -> list[Any]:
    items: list[Any] = []
    more: dict[str, str] = {}
    for _ in range(PAGES):
        page = await client.call(partial(method, limit=PAGE, **selectors, **more))
        items += page.items
        token = page.metadata._continue if page.metadata else None
        if not token:
            return items
        more = {"_continue": token}
    raise ProviderError(f"more than {PAGE * PAGES} objects")
