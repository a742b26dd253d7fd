"""A kept copy of the objects of one kind: listed once, and then brought up to date by a watch.

It is what makes a thousand deployments cost no calls while nothing happens. A copy that cannot be trusted for
the moment says so (`fresh`), and its users ask the cluster itself.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any  # Kubernetes objects as they are read

import aiohttp

from moorage.errors import Gone, ProviderError, Retry
from moorage_kubernetes.applying import Objects
from moorage_kubernetes.kinds import Kind
from moorage_kubernetes.transport import CONNECT_SECONDS, trouble

Object = dict[str, Any]
Key = tuple[str, str]  # namespace and name
OnChange = Callable[[Object], None]

WATCH_SECONDS = (240, 300)  # then the server ends it, and it begins anew where it was
PAGE = 500
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0


class Informer:
    """`on_change` hears each object that came, went, or changed in more than its bookkeeping."""

    def __init__(
        self, objects: Objects, kind: Kind, namespace: str | None, selector: str, on_change: OnChange
    ) -> None:
        self.fresh = False
        self.by_key: dict[Key, Object] = {}
        self._objects = objects
        self._kind = kind
        self._namespace = namespace
        self._selector = selector
        self._on_change = on_change

    async def run(self) -> None:
        """Until cancelled."""
        pause = FIRST_PAUSE
        revision: str | None = None
        while True:
            try:
                if revision is None:
                    revision = await self._list()
                async for seen in self._watch(revision):
                    revision, pause = seen, FIRST_PAUSE
            except Gone:
                revision = None
            except ProviderError:
                pass
            except (KeyError, TypeError, AttributeError, ValueError):
                revision = None  # what answers there does not speak as a Kubernetes API does
            else:
                continue  # its time was over
            self.fresh = False
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _list(self) -> str:
        """Replaces the copy; tells of what differs. Returns the revision to watch from."""
        found: dict[Key, Object] = {}
        more: dict[str, Any] = {}
        while True:
            page = await self._objects.page(
                self._kind, self._namespace, label_selector=self._selector, limit=PAGE, **more
            )
            for item in page.get("items") or ():
                found[key_of(item)] = trimmed(item)
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                break
            more = {"_continue": metadata["continue"]}
        before, self.by_key = self.by_key, found
        for key in before.keys() | found.keys():
            old, new = before.get(key), found.get(key)
            if not same(old, new):
                self._on_change(new or old or {})
        self.fresh = True
        return str(metadata.get("resourceVersion") or "")

    async def _watch(self, revision: str) -> AsyncIterator[str]:
        """Applies the events of one watch, and gives the revision after each. Raises Gone when the server has
        forgotten the revision, Retry when the connection broke."""
        seconds = random.randint(*WATCH_SECONDS)  # so that not all come back together
        patience = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=seconds + 30.0)
        response = await self._objects.watch(
            self._kind,
            self._namespace,
            label_selector=self._selector,
            resource_version=revision,
            allow_watch_bookmarks=True,
            timeout_seconds=seconds,
            _request_timeout=patience,
        )
        self.fresh = True
        try:
            async for event in _events(response):
                yield self._apply(event)
        finally:
            response.close()

    def _apply(self, event: Object) -> str:
        kind, value = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            message = str(value.get("message") or "the watch ended")
            raise Gone(message) if value.get("code") == 410 else Retry(message)
        revision = str(value["metadata"]["resourceVersion"])
        if kind == "BOOKMARK":
            return revision
        key, new = key_of(value), None if kind == "DELETED" else trimmed(value)
        old = self.by_key.get(key)
        if new is None:
            self.by_key.pop(key, None)
        else:
            self.by_key[key] = new
        if not same(old, new):
            self._on_change(new or trimmed(value))
        return revision


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Object]:
    """One JSON object a line. Raises Retry for anything else, and when the connection breaks."""
    while True:
        try:
            line = await response.content.readline()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise trouble(error) from None
        except ValueError:
            raise Retry("an event of the watch is too long") from None
        if not line:
            return
        try:
            event = json.loads(line)
        except ValueError:
            raise Retry("the watch does not speak as a Kubernetes API does") from None
        if not isinstance(event, dict):
            raise Retry("the watch does not speak as a Kubernetes API does")
        yield event


def key_of(value: Object) -> Key:
    metadata = value["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])


def trimmed(value: Object) -> Object:
    """Without the record of who wrote which field, half of its size."""
    metadata = {k: v for k, v in value["metadata"].items() if k != "managedFields"}
    return {**value, "metadata": metadata}


def same(old: Object | None, new: Object | None) -> bool:
    """Whether nothing changed but revisions and the times of probes."""
    if old is None or new is None:
        return old is new
    return _substance(old) == _substance(new)


def _substance(value: Object) -> Object:
    metadata = {k: v for k, v in value["metadata"].items() if k != "resourceVersion"}
    status = dict(value.get("status") or {})
    status["conditions"] = [
        {k: v for k, v in c.items() if k not in ("lastProbeTime", "lastUpdateTime", "lastHeartbeatTime")}
        for c in status.get("conditions") or ()
    ]
    return {**value, "metadata": metadata, "status": status}
