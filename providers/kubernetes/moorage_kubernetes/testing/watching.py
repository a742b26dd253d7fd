"""Watches: what changed since a revision, as it changes, with bookmarks, until time is up or it is cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping

from aiohttp import web

from moorage_kubernetes.testing.listing import number, selected
from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.statuses import ApiError, Json, bad_request, expired
from moorage_kubernetes.testing.store import Change, Store

DEFAULT_SECONDS = 1800.0


def is_watch(query: Mapping[str, str]) -> bool:
    """Clients write `true`, `True` and `1`."""
    return query.get("watch", "").lower() in ("true", "1")


class Watches:
    """All that run now. `bookmark_seconds` is the pause after which a quiet watch is sent one."""

    def __init__(self, store: Store, bookmark_seconds: float) -> None:
        self.bookmark_seconds = bookmark_seconds
        self.running = 0
        self.began = asyncio.Event()  # set whenever a watch begins; a test clears it
        self._store = store
        self._cut = asyncio.Event()
        self._ending: ApiError | None = None
        self._closing = False

    def drop(self, error: ApiError | None = None) -> None:
        """Ends every watch that runs: in the middle, or with `error` as its last event."""
        self._ending = error
        self._cut.set()
        self._cut = asyncio.Event()

    def close(self) -> None:
        self._closing = True
        self.drop()

    async def serve(self, request: web.Request, resource: Resource, namespace: str) -> web.StreamResponse:
        """Raises ApiError 400."""
        query = request.query
        selected(resource, query, [])
        try:
            seconds = float(query.get("timeoutSeconds") or DEFAULT_SECONDS)
        except ValueError as error:
            raise bad_request(f"invalid timeoutSeconds: {error}") from error
        asked = number(query, "resourceVersion") or 0
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self.running += 1
        self.began.set()
        try:
            watching = Watching(self._store, resource, namespace, query, asked)
            if await self._stream(response, watching, seconds) and request.transport is not None:
                request.transport.abort()
        except ConnectionError:  # the client went away
            pass
        finally:
            self.running -= 1
        return response

    async def _stream(self, response: web.StreamResponse, watching: Watching, seconds: float) -> bool:
        """Whether it was cut in the middle."""
        until = asyncio.get_running_loop().time() + seconds
        if watching.too_old:
            error = expired(watching.revision, self._store.compacted)
            await _send(response, "ERROR", error.as_json())
            return False
        for event in watching.first():
            await _send(response, *event)
        while not self._closing:
            cut, moved = self._cut, self._store.moved_of(watching.resource)
            for event in watching.events():
                await _send(response, *event)
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            if not moved.is_set() and not cut.is_set():
                woken = await _first(moved, cut, seconds=min(left, self.bookmark_seconds))
                if not woken and watching.bookmarks:
                    await _send(response, "BOOKMARK", watching.bookmark())
            if cut.is_set():
                if self._ending is None:
                    return True
                await _send(response, "ERROR", self._ending.as_json())
                return False
        return False


class Watching:
    """One watch's own state: how far it has come, and what it wants to see."""

    def __init__(
        self, store: Store, resource: Resource, namespace: str, query: Mapping[str, str], asked: int
    ) -> None:
        self.resource = resource
        self.bookmarks = query.get("allowWatchBookmarks", "").lower() in ("true", "1")
        self.revision = asked or store.revision
        self.too_old = 0 < asked < store.compacted
        self._from_start = not asked
        self._initial_end = query.get("sendInitialEvents", "").lower() == "true"
        self._store = store
        self._namespace = namespace
        self._query = query

    def first(self) -> Iterator[tuple[str, Json]]:
        """Without a revision, or at 0, a watch begins with all there is."""
        if not self._from_start:
            return
        for value in self._wanted(self._store.of(self.resource, self._namespace or None)):
            yield "ADDED", value
        if self._initial_end:
            mark = self.bookmark()
            mark["metadata"]["annotations"] = {"k8s.io/initial-events-end": "true"}
            yield "BOOKMARK", mark

    def events(self) -> Iterator[tuple[str, Json]]:
        """What changed since; the revision moves on."""
        for change in self._store.changes_after(self.resource, self.revision):
            self.revision = change.revision
            event = self._event(change)
            if event is not None:
                yield event
        self.revision = max(self.revision, self._store.revision)

    def bookmark(self) -> Json:
        metadata: Json = {"resourceVersion": str(self.revision), "creationTimestamp": None}
        return {"kind": self.resource.kind, "apiVersion": self.resource.api_version, "metadata": metadata}

    def _event(self, change: Change) -> tuple[str, Json] | None:
        """A change of what the selector shows: it may come into view, and go out of it."""
        if self._namespace and change.object["metadata"].get("namespace") != self._namespace:
            return None
        now = bool(self._wanted([change.object])) and change.kind != "DELETED"
        before = change.before is not None and bool(self._wanted([change.before]))
        if now:
            return ("MODIFIED" if before else "ADDED"), change.object
        return ("DELETED", change.object) if before else None

    def _wanted(self, values: list[Json]) -> list[Json]:
        return selected(self.resource, self._query, values)


async def _send(response: web.StreamResponse, kind: str, value: Json) -> None:
    await response.write(json.dumps({"type": kind, "object": value}).encode() + b"\n")


async def _first(*signals: asyncio.Event, seconds: float) -> bool:
    """Whether one of them came in time."""
    waiting: list[asyncio.Task[bool]] = [asyncio.create_task(one.wait()) for one in signals]
    try:
        done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for task in waiting:
            task.cancel()
