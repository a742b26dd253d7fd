"""Pods' logs: the last lines of all replicas in their order, and new ones as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any  # Kubernetes objects as they are read

import aiohttp

from moorage.errors import Gone, ProviderError
from moorage.ports.provider import LogLine
from moorage_kubernetes import marks
from moorage_kubernetes.applying import Objects
from moorage_kubernetes.client import ClusterClient
from moorage_kubernetes.informer import Informer, key_of
from moorage_kubernetes.judging import living
from moorage_kubernetes.kinds import DEPLOYMENT, POD
from moorage_kubernetes.pods import CONTAINER
from moorage_kubernetes.transport import CONNECT_SECONDS, read_bounded, trouble

Object = dict[str, Any]

MOST_LINES = 5000
MOST_BYTES = 16 * 1024**2
QUEUED_LINES = 1000


async def last_lines(
    client: ClusterClient, namespace: str, pod: str, tail: int, *, previous: bool
) -> tuple[str, ...]:
    """Of the run before (`previous`) if there was one. A log that cannot be read now is empty."""
    for before in (True, False) if previous else (False,):
        try:
            lines = await _read(client, namespace, pod, tail, previous=before)
        except ProviderError:
            continue
        if lines:
            return tuple(line.text for line in lines)
    return ()


async def read_logs(
    client: ClusterClient,
    objects: Objects,
    installation: str,
    namespace: str,
    name: str,
    *,
    tail: int,
    follow: bool,
) -> AsyncGenerator[LogLine, None]:
    """Raises Gone. A follower ends with the endpoint."""
    if await objects.get(DEPLOYMENT, namespace, name) is None:
        raise Gone(f"The cluster has no deployment {name}")
    pods = living(await objects.list(POD, namespace, marks.selector(installation, name)))
    past = await asyncio.gather(*(_quietly(client, namespace, p, min(tail, MOST_LINES)) for p in pods))
    merged = sorted((line for lines in past for line in lines), key=lambda line: line.at)
    for line in merged[max(0, len(merged) - tail) :]:
        yield line
    if follow:
        told = {str(p["metadata"]["name"]): _end(lines) for p, lines in zip(pods, past, strict=True)}
        async for line in _Following(client, objects, installation, namespace, name, told).lines():
            yield line


async def _quietly(client: ClusterClient, namespace: str, pod: Object, tail: int) -> Sequence[LogLine]:
    """A container that has not begun has no log yet."""
    if tail == 0:
        return ()
    try:
        return await _read(client, namespace, str(pod["metadata"]["name"]), tail)
    except ProviderError:
        return ()


async def _read(
    client: ClusterClient, namespace: str, pod: str, tail: int, *, previous: bool = False
) -> list[LogLine]:
    response = await client.open(
        client.core.read_namespaced_pod_log,
        name=pod,
        namespace=namespace,
        container=CONTAINER,
        tail_lines=tail,
        timestamps=True,
        previous=previous,
    )
    try:
        raw = await read_bounded(response, MOST_BYTES)
    except (aiohttp.ClientError, OSError) as error:
        raise trouble(error) from None
    finally:
        response.release()
    return [parsed(pod, line) for line in raw.decode("utf-8", "replace").splitlines() if line]


def parsed(pod: str, line: str) -> LogLine:
    """`2026-11-21T10:00:00.123456789Z text`."""
    stamp, _, text = line.partition(" ")
    try:
        at = datetime.fromisoformat(stamp)
    except ValueError:
        return LogLine(datetime.fromtimestamp(0, UTC), pod, line)
    return LogLine(at if at.tzinfo else at.replace(tzinfo=UTC), pod, text)


def _end(lines: Sequence[LogLine]) -> datetime | None:
    return lines[-1].at if lines else None


class _Following:
    """One open stream a pod, for as long as the endpoint is there. `told` is how far each pod was told."""

    def __init__(
        self,
        client: ClusterClient,
        objects: Objects,
        installation: str,
        namespace: str,
        name: str,
        told: dict[str, datetime | None],
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._told = told
        self._queue: asyncio.Queue[LogLine | None] = asyncio.Queue(QUEUED_LINES)
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()
        selector = marks.selector(installation, name)
        self._pods = Informer(objects, POD, namespace, selector, self._pod_changed)
        self._deployments = Informer(objects, DEPLOYMENT, namespace, selector, self._deployment_changed)
        self._name = name

    async def lines(self) -> AsyncIterator[LogLine]:
        tasks = [
            asyncio.create_task(work) for work in (self._pods.run(), self._deployments.run(), self._end())
        ]
        try:
            while (line := await self._queue.get()) is not None:
                yield line
        finally:
            running = [*tasks, *self._streams.values()]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _end(self) -> None:
        await self._ended.wait()
        await self._queue.put(None)

    def _deployment_changed(self, value: Object) -> None:
        if value["metadata"]["name"] != self._name:
            return
        there = self._deployments.by_key.get(key_of(value))
        if there is None or "deletionTimestamp" in there["metadata"]:
            self._ended.set()

    def _pod_changed(self, value: Object) -> None:
        """A container that began, or began again, has lines to come."""
        pod = str(value["metadata"]["name"])
        statuses = (value.get("status") or {}).get("containerStatuses") or ()
        runs = any("running" in (status.get("state") or {}) for status in statuses)
        stream = self._streams.get(pod)
        if runs and (stream is None or stream.done()):
            self._streams[pod] = asyncio.create_task(self._stream(pod))

    async def _stream(self, pod: str) -> None:
        since = self._told.get(pod)
        age = None if since is None else max(1, int((datetime.now(UTC) - since).total_seconds()) + 1)
        try:
            response = await self._client.open(
                self._client.core.read_namespaced_pod_log,
                name=pod,
                namespace=self._namespace,
                container=CONTAINER,
                follow=True,
                timestamps=True,
                _request_timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                **({} if age is None else {"since_seconds": age}),
            )
        except ProviderError:
            return  # opened again when the pod changes
        try:
            async for raw in response.content:
                line = parsed(pod, raw.decode("utf-8", "replace").rstrip("\r\n"))
                if since is None or line.at > since:
                    since = self._told[pod] = line.at
                    await self._queue.put(line)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return
        finally:
            response.close()
