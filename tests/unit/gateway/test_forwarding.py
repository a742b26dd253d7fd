"""What passes through, to whom, and what does not."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from moorage.domain.identity import Principal, Role
from moorage.gateway.paths import model_of
from moorage.gateway.routes import RouteTable


async def echo(request: web.Request) -> web.Response:
    seen = {name.lower(): value for name, value in request.headers.items()}
    body = (await request.read()).decode()
    return web.json_response(
        {"headers": seen, "query": request.rel_url.raw_query_string, "body": body}, status=201
    )


def named(name: str) -> Any:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text=name)

    return answer


def test_the_model_of_a_path() -> None:
    assert model_of("/v1/models/dep_1/infer") == "dep_1"
    assert model_of("/v1/models/org/name/infer") == "org/name"
    assert model_of("/v1/models//infer") is None
    assert model_of("/v1/models/infer") is None
    assert model_of("/v1/deployments/dep_1/infer") is None


@pytest.mark.parametrize("model", ["dep_1", "digits", "org/digits", "org%2Fdigits"])
async def test_a_request_passes_by_id_name_or_model(house: Any, worker: Any, model: str) -> None:
    house.publish(await worker(echo))
    url = URL(f"{house.base}/v1/models/{model}/infer?a=%2F&b=1", encoded=True)
    headers = {"authorization": "Bearer ours", "cookie": "session=1", "x-request-id": "r-1", "x-own": "kept"}
    async with house.session.post(url, data=b'{"x": 1}', headers=headers) as response:
        assert response.status == 201
        assert response.headers["x-request-id"] == "r-1"
        assert response.headers["x-moorage-deployment"] == "dep_1"
        answer = await response.json()
    assert answer["body"] == '{"x": 1}'
    assert answer["query"] == "a=%2F&b=1"
    seen = answer["headers"]
    assert (seen["x-own"], seen["x-request-id"], seen["content-length"]) == ("kept", "r-1", "8")
    assert not seen.keys() & {"authorization", "cookie"}
    assert seen["host"] != f"127.0.0.1:{house.port}"


async def test_an_empty_body_passes(house: Any, worker: Any) -> None:
    house.publish(await worker(echo))
    async with house.infer() as response:
        assert (await response.json())["body"] == ""


async def test_what_is_not_the_gateways_falls_through(house: Any) -> None:
    async with house.session.get(f"{house.base}/v1/models/digits/infer") as response:
        assert response.status == 299
    async with house.session.post(f"{house.base}/v1/deployments") as response:
        assert response.status == 299
    assert house.fell_through == ["GET /v1/models/digits/infer", "POST /v1/deployments"]


async def test_replicas_take_turns(house: Any, worker: Any) -> None:
    house.publish(*[await worker(named(name)) for name in "abc"])
    answers = [await (await house.infer(data=b"x")).text() for _ in range(9)]
    assert Counter(answers) == {"a": 3, "b": 3, "c": 3}
    assert answers[:3] == answers[3:6] == answers[6:]


async def test_big_bodies_pass_both_ways(house: Any, worker: Any) -> None:
    async def mirror(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read())

    house.publish(await worker(mirror))
    body = os.urandom(12 * 1024 * 1024)
    async with house.infer(data=body) as response:
        answer = await response.read()
    assert hashlib.sha256(answer).digest() == hashlib.sha256(body).digest()
    usage = house.gateway.meter.usage("dep_1")
    assert (usage.statuses, usage.bytes_in, usage.bytes_out) == ({200: 1}, len(body), len(body))


async def test_a_compressed_answer_stays_compressed(house: Any, worker: Any) -> None:
    async def compressed(request: web.Request) -> web.StreamResponse:
        assert request.headers["accept-encoding"] == "gzip"
        return web.Response(body=b"not really gzip", headers={"content-encoding": "gzip"})

    house.publish(await worker(compressed))
    async with house.infer(headers={"accept-encoding": "gzip"}) as response:
        assert response.headers["content-encoding"] == "gzip"
        assert await response.read() == b"not really gzip"


async def test_another_organizations_deployment_is_told_apart_from_nothing_in_no_way(
    house: Any, worker: Any, problem: Any
) -> None:
    house.publish(await worker(named("a")))
    documents = []
    for model in ("dep_1", "digits", "org/digits", "dep_none"):
        async with house.infer(model, "theirs", data=b"x") as response:
            assert response.status == 404
            documents.append(await problem(response))
    for document in documents:
        del document["request_id"]
    assert all(document == documents[-1] for document in documents)


async def test_without_a_token_or_permission_nothing_passes(house: Any, worker: Any, problem: Any) -> None:
    house.publish(await worker(named("a")))
    async with house.infer(token="wrong", data=b"x") as response:
        assert response.status == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert (await problem(response))["code"] == "unauthenticated"
    async with house.infer(token="viewer", data=b"x") as response:
        assert response.status == 403
        assert (await problem(response))["code"] == "forbidden"
    assert house.gateway.meter.tallies() == {}


async def test_an_authenticator_may_take_its_time(house: Any, worker: Any) -> None:
    async def look_up() -> Principal:
        await asyncio.sleep(0)
        return Principal("key_9", "org_ours", Role.INVOKER)

    def authenticate(_: Any) -> Awaitable[Principal]:
        return look_up()

    house.gateway._authenticate = authenticate
    house.publish(await worker(named("a")))
    async with house.infer(token="any", data=b"x") as response:
        assert await response.text() == "a"


async def test_table_updates_under_load_drop_no_request(house: Any, worker: Any) -> None:
    targets = [await worker(named(name)) for name in "ab"]
    house.publish(targets[0])
    done = asyncio.Event()
    answers: Counter[str] = Counter()

    async def caller() -> None:
        for _ in range(60):
            async with house.infer(data=b"x") as response:
                assert response.status == 200
                answers[await response.text()] += 1

    async def publish() -> int:
        count = 0
        while not done.is_set():
            count += 1
            house.publish(targets[count % 2])
            house.publish(deployment_id=f"dep_other_{count}", name=f"other-{count}", models=())
            await asyncio.sleep(0.001)
        return count

    publishing = asyncio.create_task(publish())
    await asyncio.gather(*(caller() for _ in range(8)))
    done.set()
    assert await publishing > 5
    assert answers.total() == 8 * 60
    assert set(answers) == {"a", "b"}


async def test_lanes_of_deployments_that_are_gone_are_let_go(house: Any, worker: Any) -> None:
    target = await worker(named("a"))
    for i in range(60):
        house.routes.publish(RouteTable())
        house.publish(target, deployment_id=f"dep_{i}")
        async with house.infer(data=b"x") as response:
            assert response.status == 200
    assert len(house.gateway.out.lanes) < 25
    assert len(house.gateway.meter.tallies()) < 25
