"""What the caller is told when no answer can be given, and when another replica is tried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from moorage.domain.deployment import Phase
from moorage.gateway.limits import Limits


async def read_whole(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def in_chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0.01)


async def test_a_replica_that_refuses_is_passed_over(house: Any, worker: Any, refusing: str) -> None:
    house.publish(refusing, await worker(read_whole))
    for _ in range(4):
        async with house.infer(data=b"whole") as response:
            assert await response.read() == b"whole"
    for _ in range(2):
        async with house.infer(data=in_chunks(b"one", b"two")) as response:
            assert await response.read() == b"onetwo"


async def test_a_request_that_may_have_been_seen_is_not_sent_again(
    house: Any, worker: Any, raw_worker: Any, problem: Any
) -> None:
    calls = []

    async def count(request: web.Request) -> web.Response:
        calls.append("second")
        return web.Response()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"body")
        calls.append("first")

    house.publish(await raw_worker(hang_up), await worker(count))
    async with house.infer(data=b"body") as response:
        assert response.status == 502
        assert (await problem(response))["code"] == "replica_failed"
    assert calls == ["first"]


async def test_no_replica_accepts(house: Any, refusing: str, problem: Any) -> None:
    house.publish(refusing)
    async with house.infer(data=b"x") as response:
        assert response.status == 503
        assert int(response.headers["retry-after"]) > 0
        document = await problem(response)
    assert document["code"] == "replicas_unreachable"
    assert document["deployment"] == {"id": "dep_1", "phase": "ready"}
    assert house.gateway.meter.usage("dep_1").errors == 1


@pytest.mark.parametrize(
    ("phase", "passing"), [(Phase.LOADING_MODEL, True), (Phase.FAILED, False), (Phase.STOPPED, False)]
)
async def test_a_deployment_without_replicas_names_its_phase(
    house: Any, problem: Any, phase: Phase, passing: bool
) -> None:
    house.publish(phase=phase)
    async with house.infer(data=b"x") as response:
        assert response.status == 503
        assert ("retry-after" in response.headers) is passing
        document = await problem(response)
    assert document["code"] == "deployment_not_serving"
    assert document["deployment"]["phase"] == phase
    assert phase in document["detail"]


@pytest.mark.parametrize("house", [Limits(body_bytes=100_000)], indirect=True)
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_refused(
    house: Any, worker: Any, problem: Any, declared: bool
) -> None:
    asked, whole = [], []

    async def read(request: web.Request) -> web.Response:
        asked.append(request)
        whole.append(await request.read())
        return web.Response()

    house.publish(await worker(read))
    body = b"x" * 100_001 if declared else in_chunks(*[b"x" * 10_000] * 11)
    async with house.infer(data=body) as response:
        assert response.status == 413
        document = await problem(response)
    assert document["code"] == "body_too_large"
    assert document["errors"][0]["field"] == "body"
    assert document["errors"][0]["rule"] == "max_bytes"
    assert "100000" in document["detail"]
    assert len(asked) == (0 if declared else 1)  # a body known to be too large reaches no worker
    async with house.infer(data=b"x" * 100_000) as response:
        assert response.status == 200
    assert whole == [b"x" * 100_000]


@pytest.mark.parametrize("house", [Limits(answer=0.1)], indirect=True)
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_replica_that_does_not_answer_in_time(
    house: Any, raw_worker: Any, problem: Any, streamed: bool
) -> None:
    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        left.set()

    house.publish(await raw_worker(silent))
    body: Any = in_chunks(b"a", b"b") if streamed else b"ab"
    async with asyncio.timeout(10), house.infer(data=body) as response:
        assert response.status == 504
        assert (await problem(response))["code"] == "upstream_timeout"
        await left.wait()


@pytest.mark.parametrize("house", [Limits(answer=0.1)], indirect=True)
async def test_a_slow_upload_is_no_slow_answer(house: Any, worker: Any) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b"x"
            await asyncio.sleep(0.04)

    house.publish(await worker(read_whole))
    async with house.infer(data=slowly()) as response:
        assert response.status == 200
        assert await response.read() == b"xxxxxx"


@pytest.mark.parametrize("house", [Limits(upload=0.1)], indirect=True)
@pytest.mark.parametrize("part", [b"", b"part"])
async def test_a_body_that_does_not_arrive(house: Any, raw_worker: Any, part: bytes) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    house.publish(await raw_worker(silent))
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(
            b"POST /v1/models/digits/infer HTTP/1.1\r\nhost: a\r\nauthorization: Bearer ours\r\n"
            b"content-length: 100\r\n\r\n" + part
        )
        answer = await reader.read()  # the connection ends with the answer
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer


async def test_an_answer_that_is_no_http(house: Any, raw_worker: Any, problem: Any) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x00\x01 what?\r\n\r\n")

    house.publish(await raw_worker(babble))
    async with house.infer(data=b"x") as response:
        assert response.status == 502
        await problem(response)
