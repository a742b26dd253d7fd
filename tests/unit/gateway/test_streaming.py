"""Bytes pass as they come, no faster than they are taken, and stop when a side leaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientPayloadError, web

WAIT = 10.0  # seconds within which something that must happen happens
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"


def request_bytes(body: bytes = b"x", length: int | None = None) -> bytes:
    return (
        b"POST /v1/models/digits/infer HTTP/1.1\r\nhost: a\r\nauthorization: Bearer ours\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body) if length is None else length, body)
    )


async def read_request(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def test_an_answers_chunks_arrive_before_its_end(house: Any, worker: Any) -> None:
    seen = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await seen.wait()
        await response.write(b"second")
        return response

    house.publish(await worker(stream))
    async with asyncio.timeout(WAIT), house.infer(data=b"x") as response:
        assert await response.content.readany() == b"first"
        seen.set()
        assert await response.content.read() == b"second"


async def test_the_head_arrives_before_the_first_chunk(house: Any, worker: Any) -> None:
    seen = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"")
        await seen.wait()
        await response.write(b"late")
        return response

    house.publish(await worker(stream))
    async with asyncio.timeout(WAIT), house.infer(data=b"x") as response:
        assert response.status == 200
        seen.set()
        assert await response.read() == b"late"


async def test_a_bodys_chunks_arrive_before_its_end(house: Any, worker: Any) -> None:
    seen = asyncio.Event()

    async def read(request: web.Request) -> web.StreamResponse:
        first = await request.content.readany()
        seen.set()
        return web.Response(body=first + b"|" + await request.content.read())

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await seen.wait()
        yield b"second"

    house.publish(await worker(read))
    async with asyncio.timeout(WAIT), house.infer(data=body()) as response:
        assert await response.read() == b"first|second"


@pytest.mark.parametrize("answer_begun", [False, True])
async def test_a_caller_who_leaves_ends_the_workers_work(
    house: Any, raw_worker: Any, answer_begun: bool
) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if answer_begun:
            writer.write(HEAD + b"content-length: 100\r\n\r\nbegun")
        asked.set()
        while await reader.read(1024):
            pass
        left.set()

    house.publish(await raw_worker(work))
    async with asyncio.timeout(WAIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(request_bytes())
        await asked.wait()
        if answer_begun:
            await reader.readuntil(b"begun")
        writer.close()
        await left.wait()
        await counted(house)
    assert house.gateway.meter.usage("dep_1").statuses == {499: 1}


async def test_a_caller_who_leaves_in_the_middle_of_a_body_ends_the_workers_work(
    house: Any, raw_worker: Any
) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"part")
        asked.set()
        assert await reader.read() == b""
        left.set()

    house.publish(await raw_worker(work))
    async with asyncio.timeout(WAIT):
        _, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(request_bytes(b"part", length=100))
        await asked.wait()
        writer.close()
        await left.wait()
        await counted(house)
    assert house.gateway.meter.usage("dep_1").statuses == {499: 1}


async def test_a_caller_who_leaves_after_a_long_upload_ends_the_workers_work(
    house: Any, raw_worker: Any
) -> None:
    begun, asked, left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"part")
        begun.set()
        await reader.readuntil(b"rest")
        asked.set()
        assert await reader.read() == b""
        left.set()

    house.publish(await raw_worker(work))
    async with asyncio.timeout(WAIT):
        _, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(request_bytes(b"part", length=8))
        await begun.wait()
        await asyncio.sleep(0.05)  # longer than a request is left unattended
        writer.write(b"rest")
        await asked.wait()
        writer.close()
        await left.wait()
        await counted(house)
    assert house.gateway.meter.usage("dep_1").statuses == {499: 1}


async def counted(house: Any) -> None:
    """The gateway counts after it has let go of the worker, which the worker may notice first."""
    usage = house.gateway.meter.usage
    while not usage("dep_1").requests:  # noqa: ASYNC110 - the meter has no signal, being plain numbers
        await asyncio.sleep(0.005)


async def test_a_slow_caller_slows_the_worker(house: Any, raw_worker: Any) -> None:
    total, piece = 128 * 1024 * 1024, b"x" * 65536
    taken = 0
    stalled = asyncio.Event()

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await read_request(reader)
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % total)
        while taken < total:
            writer.write(piece)
            taken += len(piece)
            drained = asyncio.ensure_future(writer.drain())
            if not (await asyncio.wait([drained], timeout=0.5))[0]:
                stalled.set()
            await drained

    house.publish(await raw_worker(work))
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    connection.setblocking(False)
    async with asyncio.timeout(60):
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", house.port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=65536)
        writer.write(request_bytes())
        await stalled.wait()
        assert taken < total / 4  # what the sockets on the way hold; the gateway itself holds 128 KiB or so
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(total)
        writer.close()


async def test_an_answer_that_breaks_off_does_not_look_whole(house: Any, raw_worker: Any) -> None:
    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n")
        await writer.drain()

    house.publish(await raw_worker(work))
    async with asyncio.timeout(WAIT), house.infer(data=b"x") as response:
        assert response.status == 200
        with pytest.raises(ClientPayloadError):
            await response.read()
    assert house.gateway.meter.usage("dep_1").statuses == {502: 1}
