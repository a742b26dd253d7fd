"""Events and logs of a deployment, read as JSON and followed as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any  # JSON of the API

import httpx
import pytest

from moorage.api import sse
from moorage.ports.provider import LogLine
from moorage.services import deployments

from .conftest import Api, problem

SSE = {"accept": "text/event-stream"}
LIFE = [
    "deployment.validating",
    "deployment.selecting_gpu",
    "deployment.creating_endpoint",
    "deployment.loading_model",
    "deployment.ready",
    "deployment.delete_requested",
    "deployment.deleting",
    "deployment.endpoint_removed",
    "deployment.deleted",
]


@dataclass(frozen=True)
class Frame:
    """One server-sent event; a comment has neither name nor data."""

    event: str | None
    id: str | None
    data: Any


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, path: str, **headers: str
) -> AsyncIterator[AsyncIterator[Frame]]:
    async with client.stream("GET", path, headers={**SSE, **headers}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        yield _frames(answer)


async def _frames(answer: httpx.Response) -> AsyncIterator[Frame]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        elif fields:
            data = json.loads(fields["data"]) if "data" in fields else None
            yield Frame(fields.get("event"), fields.get("id"), data)
            fields = {}


async def delete(api: Api, id_: str) -> None:
    assert (await api.owner.delete(f"/v1/deployments/{id_}")).status_code == 204


async def test_a_follower_hears_the_whole_life_and_the_stream_ends_with_it(api: Api) -> None:
    id_ = await api.deploy()
    heard: list[Frame] = []
    async with asyncio.timeout(10), following(api.owner, f"/v1/deployments/{id_}/events") as frames:
        async for frame in frames:
            heard.append(frame)
            if frame.event == "deployment.ready":
                await delete(api, id_)
    assert [frame.event for frame in heard] == LIFE
    read = (await api.owner.get(f"/v1/deployments/{id_}/events")).json()
    assert [frame.data for frame in heard] == read["items"], "the same, read as JSON"
    assert [frame.id for frame in heard] == [item["id"] for item in read["items"]]
    assert read["next_after"] == heard[-1].id
    assert all(before["at"] <= after["at"] for before, after in pairwise(read["items"]))


async def test_a_reader_that_lost_its_connection_goes_on_where_it_was(api: Api) -> None:
    id_ = await api.deploy()
    await api.until(id_, "ready")
    path = f"/v1/deployments/{id_}/events"
    async with following(api.owner, path) as frames:
        first = [await anext(frames) for _ in range(3)]
    assert first[-1].id is not None
    await delete(api, id_)
    headers = {"last-event-id": first[-1].id}
    async with asyncio.timeout(10), following(api.owner, path, **headers) as frames:
        rest = [frame async for frame in frames]
    assert [frame.event for frame in (*first, *rest)] == LIFE, "nothing twice, nothing lost"


async def test_events_are_read_page_by_page(api: Api) -> None:
    id_ = await api.deploy()
    await api.until(id_, "ready")
    path, seen, after = f"/v1/deployments/{id_}/events", [], None
    while True:
        params: dict[str, Any] = {"limit": 2} | ({"after": after} if after else {})
        page = (await api.owner.get(path, params=params)).json()
        if not page["items"]:
            assert page["next_after"] == after, "an empty page leads nowhere else"
            break
        assert len(page["items"]) <= 2
        seen += [item["type"] for item in page["items"]]
        after = page["next_after"]
    assert seen == LIFE[:5]
    told = await api.owner.get(path, headers={"last-event-id": str(after)})
    assert told.json()["items"] == [], "the header counts for JSON too"


async def test_a_quiet_stream_is_kept_alive(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployments, "KEEPALIVE_SECONDS", 0.05)
    id_ = await api.deploy()
    await api.until(id_, "ready")
    async with asyncio.timeout(10), following(api.owner, f"/v1/deployments/{id_}/events") as frames:
        heard = [(await anext(frames)).event for _ in range(8)]
    assert heard == [*LIFE[:5], None, None, None]


async def test_a_follower_that_leaves_is_let_go(api: Api) -> None:
    id_ = await api.deploy()
    await api.until(id_, "ready")
    async with following(api.owner, f"/v1/deployments/{id_}/events") as frames:
        await anext(frames)
        assert id_ in api.service.signals._waiting  # what would grow with every reader that was not let go
    async with asyncio.timeout(5):
        while id_ in api.service.signals._waiting:  # noqa: ASYNC110 the server tells nobody that it noticed
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("part", ["events", "logs"])
async def test_following_what_is_not_there_is_a_problem_and_no_stream(api: Api, part: str) -> None:
    answer = await api.owner.get(f"/v1/deployments/dep_none/{part}", headers=SSE)
    problem(answer, 404, "deployment_not_found")


async def test_log_lines_are_read_by_tail_and_followed_to_the_end(api: Api) -> None:
    id_ = await api.deploy()
    await api.until(id_, "ready")
    (name,) = api.compute.endpoints
    for number in range(5):
        api.compute.log(name, f"line {number}")
    path = f"/v1/deployments/{id_}/logs"
    items = (await api.owner.get(path, params={"tail": 2})).json()["items"]
    assert [item["text"] for item in items] == ["line 3", "line 4"]
    assert items[0].keys() == {"at", "replica", "text"}
    assert (await api.owner.get(path, params={"tail": 0})).json()["items"] == []
    heard: list[str] = []
    async with asyncio.timeout(10), following(api.owner, f"{path}?tail=1") as frames:
        async for frame in frames:
            assert frame.event == "log"
            heard.append(frame.data["text"])
            if frame.data["text"] == "line 4":
                api.compute.log(name, "a new line\nof two")
            else:
                await delete(api, id_)
    assert heard == ["line 4", "a new line\nof two"]


async def test_logs_can_be_followed_before_there_is_an_endpoint(api: Api) -> None:
    api.compute.faults.slow["create"] = 0.5
    id_ = await api.deploy()
    assert (await api.owner.get(f"/v1/deployments/{id_}/logs")).json() == {"items": []}
    async with asyncio.timeout(10), following(api.owner, f"/v1/deployments/{id_}/logs") as frames:
        assert (await anext(frames)).data["text"] == "starting"


async def test_following_logs_of_what_never_had_an_endpoint_ends_by_itself(api: Api) -> None:
    api.compute.faults.no_capacity.add("cpu")
    id_ = await api.deploy(capacity_deadline_seconds=1)
    async with asyncio.timeout(15), following(api.owner, f"/v1/deployments/{id_}/logs") as frames:
        assert [frame async for frame in frames] == []
    assert (await api.read(id_))["status"] == "failed"


async def test_two_followers_hear_the_same_events_and_lines(api: Api) -> None:
    id_ = await api.deploy()
    await api.until(id_, "ready")
    (name,) = api.compute.endpoints
    both = asyncio.Barrier(5)  # four followers that have begun, and this test

    async def follow(part: str) -> list[Frame]:
        async with following(api.owner, f"/v1/deployments/{id_}/{part}") as frames:
            heard = [await anext(frames)]
            await both.wait()
            return heard + [frame async for frame in frames]

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        followers = [group.create_task(follow(part)) for part in ("events", "events", "logs", "logs")]
        await both.wait()
        api.compute.log(name, "for both")
        await delete(api, id_)
    events, same_events, lines, same_lines = (follower.result() for follower in followers)
    assert [frame.event for frame in events] == LIFE
    assert events == same_events
    assert [frame.data["text"] for frame in lines] == ["starting", "for both"]
    assert lines == same_lines


async def test_a_log_follower_that_waits_for_the_endpoint_is_kept_alive_and_let_go_when_it_leaves(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEPALIVE_SECONDS", 0.05)
    api.compute.faults.no_capacity.add("cpu")
    id_ = await api.deploy(capacity_deadline_seconds=600)
    async with asyncio.timeout(5), following(api.owner, f"/v1/deployments/{id_}/logs") as frames:
        assert [(await anext(frames)).event for _ in range(3)] == [None, None, None]
        assert id_ in api.service.signals._waiting
    async with asyncio.timeout(5):
        while id_ in api.service.signals._waiting:  # noqa: ASYNC110 the server tells nobody that it noticed
            await asyncio.sleep(0.02)


async def test_a_quiet_log_is_kept_alive_and_no_line_is_lost_between_two_signs_of_life(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEPALIVE_SECONDS", 0.02)
    id_ = await api.deploy()
    await api.until(id_, "ready")
    (name,) = api.compute.endpoints
    heard: list[str] = []
    async with asyncio.timeout(10), following(api.owner, f"/v1/deployments/{id_}/logs") as frames:
        async for frame in frames:
            if frame.event is None:
                if len(heard) == 6:
                    await delete(api, id_)
                else:
                    api.compute.log(name, f"line {len(heard)}")
            else:
                heard.append(frame.data["text"])
    assert heard[:6] == ["starting", *(f"line {n}" for n in range(1, 6))]


async def test_a_log_follower_that_leaves_lets_go_of_the_provider(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await api.deploy()
    await api.until(id_, "ready")
    over = asyncio.Event()
    log_lines = api.compute.log_lines

    async def watched(name: str, tail: int, follow: bool) -> AsyncIterator[LogLine]:
        try:
            async for line in log_lines(name, tail, follow):
                yield line
        finally:
            if follow:
                over.set()

    monkeypatch.setattr(api.compute, "log_lines", watched)
    async with following(api.owner, f"/v1/deployments/{id_}/logs") as frames:
        assert (await anext(frames)).data["text"] == "starting"
        assert not over.is_set()
    async with asyncio.timeout(5):
        await over.wait()


async def test_logs_of_an_endpoint_that_vanished_are_empty_and_their_stream_ends(api: Api) -> None:
    id_ = await api.deploy()
    await api.until(id_, "ready")
    api.compute.faults.slow["observe"] = 0.5  # it is gone, and the engine does not know yet
    api.compute.vanish(next(iter(api.compute.endpoints)))
    path = f"/v1/deployments/{id_}/logs"
    answer = await api.owner.get(path)
    assert (answer.status_code, answer.json()) == (200, {"items": []})
    async with asyncio.timeout(5), following(api.owner, path) as frames:
        assert [frame async for frame in frames] == []
