"""The log stream of a worker: what of the past comes, what comes later, and where it ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from moorage_runpod.testing import FakeRunPod
from moorage_runpod.testing.endpoint import rfc3339
from moorage_runpod.testing.worker import Worker

from .asking import create, until_statuses

Written = tuple[Worker, str]


@pytest.fixture
async def written(fake: FakeRunPod, client: httpx.AsyncClient) -> Written:
    """A worker whose log ends with a system line and the lines 0 to 4; and the log's path."""
    made = await create(client, workers={"min": 1})
    await until_statuses(client, made, "IDLE")
    [worker] = fake.endpoints[0].workers.values()
    worker.log.write("a machine speaks", "system")
    for number in range(5):
        worker.log.write(str(number))
    return worker, f"/v2/serverless/{made['id']}/workers/{worker.id}/logs"


async def read(client: httpx.AsyncClient, path: str, count: int, **more: Any) -> list[dict[str, str]]:
    """The first `count` events."""
    found: list[dict[str, str]] = []
    async with asyncio.timeout(10), client.stream("GET", path, **more) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
            if len(found) == count:
                return found
    return found


async def test_the_tail(client: httpx.AsyncClient, written: Written) -> None:
    _, path = written
    assert [e["line"] for e in await read(client, f"{path}?tail=2", 2)] == ["3", "4"]
    assert [e["line"] for e in await read(client, f"{path}?tail=1&source=system", 1)] == ["a machine speaks"]
    assert (await client.get(f"{path}?tail=5001")).status_code == 422
    assert (await client.get(f"{path}?source=heaven")).status_code == 422


async def test_from_a_point_on(client: httpx.AsyncClient, written: Written) -> None:
    worker, path = written
    events = await read(client, f"{path}?tail=5", 5)
    assert [e["ts"] for e in events] == [rfc3339(line.at) for line in worker.log.tail(5, None)]
    at = events[0]["ts"]  # lines of one moment share it
    assert at < events[4]["ts"]
    from_there = [e["line"] for e in events if e["ts"] >= at]
    since = await read(client, path, len(from_there), params={"since": at, "tail": 0})
    assert [e["line"] for e in since] == from_there
    later = [e["line"] for e in events if e["ts"] > at]
    after = await read(client, path, len(later), headers={"Last-Event-ID": at})
    assert [e["line"] for e in after] == later


async def test_what_comes_later_comes_until_the_worker_goes(
    fake: FakeRunPod, client: httpx.AsyncClient, written: Written
) -> None:
    worker, path = written
    route = "GET /v2/serverless/{id}/workers/{workerId}/logs"
    reading = asyncio.create_task(read(client, f"{path}?tail=0", 100))
    await fake.came(lambda: fake.sent(route))
    worker.log.write("news")
    fake.cloud.delete(fake.endpoints[0])
    assert [e["line"] for e in await reading] == ["news"]
