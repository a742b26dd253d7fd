"""Writing, reading and deleting objects of any of our kinds, through the library's typed APIs.

Every write is a server-side apply under our field manager, so that it may be repeated by anybody at any time,
or a merge patch of the few fields that others own as well: replicas, and notes on what we did.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any  # Kubernetes objects, and the library's methods, are not typed

import aiohttp

from moorage.errors import Conflict, Gone
from moorage_kubernetes import marks
from moorage_kubernetes.client import ClusterClient
from moorage_kubernetes.kinds import KINDS, Kind

Object = dict[str, Any]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
PAGE = 500


class Objects:
    """Of one cluster. Everything raises ProviderErrors."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client

    async def apply(self, wanted: Object) -> Object:
        """The object as the server has it now. Of two that make it at the same moment one is told of a
        conflict, and then finds it."""
        try:
            return await self._patch(wanted, APPLY)
        except Conflict:
            return await self._patch(wanted, APPLY)

    async def create(self, wanted: Object) -> Object:
        """Raises Conflict where it exists."""
        kind, metadata = KINDS[wanted["kind"]], wanted["metadata"]
        where = {"namespace": metadata["namespace"]} if "namespace" in metadata else {}
        made: Object = await self._client.read(
            self._method(kind, "create"),
            **where,
            body=wanted,
            field_manager=marks.MANAGER,
            field_validation="Strict",
        )
        return made

    async def merge(self, kind: Kind, namespace: str, name: str, change: Mapping[str, Any]) -> Object:
        """Raises Gone."""
        metadata = {"name": name, "namespace": namespace}
        body = {"apiVersion": kind.api_version, "kind": kind.name, **change}
        return await self._patch(body, MERGE, metadata)

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        try:
            found: Object = await self._client.read(self._method(kind, "read"), **_at(kind, namespace, name))
        except Gone:
            return None
        return found

    async def list(self, kind: Kind, namespace: str | None, selector: str) -> list[Object]:
        """In all namespaces where `namespace` is None."""
        found: list[Object] = []
        more: dict[str, str] = {}
        while True:
            page = await self.page(kind, namespace, label_selector=selector, limit=PAGE, **more)
            found += page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            more = {"_continue": token}

    async def page(self, kind: Kind, namespace: str | None, **query: Any) -> Object:
        """One answer of a list, with its resource version."""
        page: Object = await self._client.read(
            self._method(kind, "list", everywhere=namespace is None),
            **({} if namespace is None else {"namespace": namespace}),
            **query,
        )
        return page

    async def watch(self, kind: Kind, namespace: str | None, **query: Any) -> aiohttp.ClientResponse:
        """The stream of events, for the caller to read and close."""
        return await self._client.open(
            self._method(kind, "list", everywhere=namespace is None),
            **({} if namespace is None else {"namespace": namespace}),
            watch=True,
            **query,
        )

    async def delete(self, kind: Kind, namespace: str, name: str, *, foreground: bool = False) -> bool:
        """Whether there was something to delete. It may be there for a while yet."""
        policy = "Foreground" if foreground else "Background"
        try:
            await self._client.read(
                self._method(kind, "delete"), **_at(kind, namespace, name), propagation_policy=policy
            )
        except Gone:
            return False
        return True

    async def _patch(self, body: Object, content_type: str, at: Mapping[str, str] | None = None) -> Object:
        kind = KINDS[body["kind"]]
        metadata = at or body["metadata"]
        force = {"force": True} if content_type == APPLY else {}
        answer: Object = await self._client.read(
            self._method(kind, "patch"),
            **_at(kind, metadata.get("namespace", ""), metadata["name"]),
            body=body,
            field_manager=marks.MANAGER,
            field_validation="Strict",
            _content_type=content_type,
            **force,
        )
        return answer

    def _method(
        self, kind: Kind, verb: str, *, everywhere: bool = False
    ) -> Any:  # a bound method of the library
        area = getattr(self._client, kind.area)
        if kind.custom:
            word = {"read": "get"}.get(verb, verb)
            scope = "cluster" if everywhere else "namespaced"
            method = getattr(area, f"{word}_{scope}_custom_object")
            return partial(method, group=kind.group, version=kind.version, plural=kind.plural)
        if kind.method == "namespace":
            return getattr(area, f"{verb}_namespace")
        if everywhere:
            return getattr(area, f"{verb}_{kind.method}_for_all_namespaces")
        return getattr(area, f"{verb}_namespaced_{kind.method}")


def _at(kind: Kind, namespace: str, name: str) -> dict[str, str]:
    return {"name": name} if kind.method == "namespace" else {"name": name, "namespace": namespace}
