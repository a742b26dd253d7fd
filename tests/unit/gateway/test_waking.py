"""A request to a deployment that sleeps wakes it, once, and waits until a replica answers."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from moorage.domain.deployment import Phase
from moorage.errors import Clash
from moorage.gateway import waking
from moorage.gateway.job_replicas import JobReplicas
from moorage.gateway.limits import Limits
from moorage.gateway.routes import Route, RoutePublisher, RouteTable
from moorage.gateway.upstream import no_auth
from moorage.gateway.waking import USUAL_SECONDS, Waker

WAIT = 20.0  # seconds within which something that must happen happens


class Bed:
    """Counts who is woken; `came` is set at each call."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.came = asyncio.Event()
        self.fails: Exception | None = None

    async def wake(self, deployment_id: str) -> None:
        self.woken.append(deployment_id)
        self.came.set()
        if self.fails is not None:
            raise self.fails


@pytest.fixture
async def bed(house: Any) -> AsyncIterator[Bed]:
    found = Bed()
    house.gateway.out.waker = Waker(house.routes, found.wake)
    yield found
    await house.gateway.out.waker.aclose()


async def mirror(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def answered(house: Any, body: Any = b"x", **options: Any) -> tuple[int, bytes]:
    async with house.infer(data=body, **options) as response:
        return response.status, await response.read()


async def waiting(house: Any, count: int = 1) -> None:
    """Until so many requests wait."""
    waker = house.gateway.out.waker
    async with asyncio.timeout(WAIT):
        while sum(len(one.waiting) for one in waker._waking.values()) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("phase", [Phase.HIBERNATED, Phase.WAKING])
async def test_a_request_waits_until_a_replica_answers(
    house: Any, bed: Bed, worker: Any, phase: Phase
) -> None:
    target = await worker(mirror)
    house.publish(phase=phase)
    asking = asyncio.create_task(answered(house, b"good morning"))
    await asyncio.wait_for(bed.came.wait(), WAIT)
    house.routes.put(Route("dep_1", "org_ours", "digits", phase=Phase.WAKING))
    await waiting(house)
    house.publish(target)
    assert await asking == (200, b"good morning")
    assert bed.woken == ["dep_1"]
    assert house.gateway.meter.usage("dep_1").statuses == {200: 1}


async def test_a_thousand_requests_wake_it_once(house: Any, bed: Bed, worker: Any) -> None:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < 4096 <= most:  # three sockets a request
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, most))
    target = await worker(mirror)
    house.publish(phase=Phase.HIBERNATED)
    asking = [asyncio.create_task(answered(house, b"%d" % i)) for i in range(1000)]
    await waiting(house, 1000)
    house.routes.publish(house.routes.current.with_route(Route("dep_2", "org_ours", "other")))
    assert not any(task.done() for task in asking)
    house.publish(target)
    assert await asyncio.gather(*asking) == [(200, b"%d" % i) for i in range(1000)]
    assert bed.woken == ["dep_1"]
    assert house.gateway.out.waker._waking == {}
    assert house.routes._watchers == {}


async def test_any_path_of_a_container_wakes_it_too(house: Any, bed: Bed, worker: Any) -> None:
    target = await worker(mirror)
    house.publish(phase=Phase.HIBERNATED)
    url = f"{house.base}/v1/deployments/digits/proxy/infer"
    asking = asyncio.create_task(house.session.post(url, headers={"authorization": "Bearer ours"}, data=b"x"))
    await waiting(house)
    house.publish(target)
    assert await (await asking).read() == b"x"


@pytest.mark.parametrize("size", [0, 100_000, 600_000, 4_000_000])
async def test_bodies_of_any_size_arrive_whole(house: Any, bed: Bed, worker: Any, size: int) -> None:
    body = os.urandom(size)
    target = await worker(mirror)
    house.publish(phase=Phase.HIBERNATED)
    asking = asyncio.create_task(answered(house, body))
    await waiting(house)
    house.publish(target)
    assert await asking == (200, body)


async def test_what_is_held_of_bodies_is_bounded_and_given_back(house: Any, bed: Bed, worker: Any) -> None:
    waker = house.gateway.out.waker
    room = waker._room
    target = await worker(mirror)
    house.publish(phase=Phase.HIBERNATED)
    asking = [asyncio.create_task(answered(house, b"x" * 8_000_000)) for _ in range(4)]
    await waiting(house, 4)
    assert room - waker._room == 4 * 512 * 1024
    asking.append(asyncio.create_task(answered(house, b"small")))
    await waiting(house, 5)
    assert room - waker._room == 4 * 512 * 1024 + len(b"small")
    house.publish(target)
    assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 5
    assert waker._room == room


async def test_without_room_bodies_wait_at_the_caller(house: Any, bed: Bed, worker: Any) -> None:
    house.gateway.out.waker._room = 0
    body = os.urandom(4_000_000)
    target = await worker(mirror)
    house.publish(phase=Phase.HIBERNATED)
    asking = asyncio.create_task(answered(house, body))
    await waiting(house)
    house.publish(target)
    assert await asking == (200, body)


async def test_who_leaves_waits_no_longer(house: Any, bed: Bed) -> None:
    house.publish(phase=Phase.HIBERNATED)
    asking = asyncio.create_task(answered(house))
    await waiting(house)
    asking.cancel()
    await waiting(house, 0)
    async with asyncio.timeout(WAIT):
        while not house.gateway.meter.usage("dep_1").requests:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert house.gateway.meter.usage("dep_1").statuses == {499: 1}
    assert house.gateway.meter.tallies()["dep_1"].in_flight == 0


@pytest.mark.parametrize("house", [Limits(wake=0.05)], indirect=True)
async def test_one_that_does_not_wake_in_time(house: Any, bed: Bed, problem: Any) -> None:
    house.publish(phase=Phase.HIBERNATED)
    async with house.infer(data=b"x") as response:
        assert response.status == 503
        assert 1 <= int(response.headers["retry-after"]) <= USUAL_SECONDS
        document = await problem(response)
    assert document["code"] == "deployment_waking"
    assert document["deployment"] == {"id": "dep_1", "phase": "hibernated"}
    assert house.gateway.out.waker._waking["dep_1"].waiting == set()


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.STOPPED, None])
async def test_one_that_will_not_wake_keeps_nobody_waiting(
    house: Any, bed: Bed, problem: Any, phase: Phase | None
) -> None:
    house.publish(phase=Phase.HIBERNATED)
    asking = asyncio.create_task(house.infer(data=b"x"))
    await waiting(house)
    if phase is None:
        house.routes.drop("dep_1")
    else:
        house.routes.put(Route("dep_1", "org_ours", "digits", phase=phase))
    async with asyncio.timeout(WAIT):
        document = await problem(await asking)
    assert document["code"] == ("deployment_not_found" if phase is None else "deployment_not_serving")
    assert house.gateway.out.waker._waking == {}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(Clash("It was stopped.", code="stopped"), 409, "stopped"), (OSError("secret"), 503, "wake_failed")],
)
async def test_a_wake_that_fails_is_told_and_tried_again(
    house: Any, bed: Bed, problem: Any, error: Exception, status: int, code: str
) -> None:
    bed.fails = error
    house.publish(phase=Phase.HIBERNATED)
    for _ in range(2):
        async with house.infer(data=b"x") as response:
            assert response.status == status
            document = await problem(response)
        assert document["code"] == code
        assert "secret" not in str(document)
    assert bed.woken == ["dep_1"] * 2


@pytest.mark.parametrize("phase", [Phase.LOADING_MODEL, Phase.STOPPED, Phase.READY, Phase.FAILED])
async def test_what_does_not_sleep_is_not_woken(house: Any, bed: Bed, problem: Any, phase: Phase) -> None:
    house.publish(phase=phase)
    async with house.infer(data=b"x") as response:
        assert response.status == 503
        await problem(response)
    assert bed.woken == []


@pytest.mark.parametrize("token", ["wrong", "viewer", "theirs"])
async def test_who_may_not_ask_wakes_nobody(house: Any, bed: Bed, token: str) -> None:
    house.publish(phase=Phase.HIBERNATED)
    async with house.infer(token=token, data=b"x") as response:
        assert response.status in (401, 403, 404)
    assert bed.woken == []


@pytest.mark.parametrize("house", [Limits(body_bytes=10)], indirect=True)
async def test_a_body_that_is_refused_wakes_nobody(house: Any, bed: Bed) -> None:
    house.publish(phase=Phase.HIBERNATED)
    async with house.infer(data=b"x" * 11) as response:
        assert response.status == 413
    assert bed.woken == []


async def test_a_job_for_one_that_sleeps_wakes_it_and_does_not_wait(bed_alone: tuple[Any, ...]) -> None:
    routes, bed, waker = bed_alone
    replicas = JobReplicas(routes, no_auth, waker=waker)
    for _ in range(3):
        replicas.missed("dep_1")
        replicas.missed("dep_unknown")
    await asyncio.wait_for(bed.came.wait(), WAIT)
    assert bed.woken == ["dep_1"]
    routes.put(Route("dep_1", "org", "a", phase=Phase.STOPPED))
    replicas.missed("dep_1")
    await asyncio.sleep(0)
    assert bed.woken == ["dep_1"]


# -- how long it takes -----------------------------------------------------------------------------------


@pytest.fixture
async def bed_alone() -> AsyncIterator[tuple[RoutePublisher, Bed, Waker]]:
    routes = RoutePublisher(RouteTable([Route("dep_1", "org", "a", phase=Phase.HIBERNATED)]))
    bed = Bed()
    waker = Waker(routes, bed.wake)
    yield routes, bed, waker
    await waker.aclose()


async def test_the_time_that_is_left_follows_from_the_last_wakes(
    bed_alone: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    routes, _, waker = bed_alone
    now = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now, raising=False)
    assert waker.seconds_left("dep_1") == USUAL_SECONDS
    for seconds in (5.0, 90.0, 12.0):
        waker.rouse("dep_1")
        now += seconds
        routes.put(Route("dep_1", "org", "a", targets=("http://a",)))
        routes.put(Route("dep_1", "org", "a", phase=Phase.HIBERNATED))
    assert waker.seconds_left("dep_1") == 12.0
    waker.rouse("dep_1")
    now += 4.0
    assert waker.seconds_left("dep_1") == 8.0
    now += 60.0  # longer than ever
    assert waker.seconds_left("dep_1") == 12.0
    waker.keep({"dep_2"})
    assert waker.seconds_left("dep_1") == USUAL_SECONDS


async def test_it_is_woken_again_only_after_a_while(
    bed_alone: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bed, waker = bed_alone
    now = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now, raising=False)
    for seconds in (0.0, waking._AGAIN_SECONDS / 2, waking._AGAIN_SECONDS):
        now += seconds
        waker.rouse("dep_1")
    await asyncio.gather(*waker._calls)
    assert bed.woken == ["dep_1"] * 2


async def test_those_who_wait_when_it_ends_are_given_up(bed_alone: tuple[Any, ...]) -> None:
    _, _, waker = bed_alone
    future = waker.awake("dep_1")
    await waker.aclose()
    assert future.cancelled()
