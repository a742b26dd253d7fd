"""Any path and any method of a replica, below `/v1/deployments/{id or name}/proxy`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from moorage.domain.deployment import Phase
from moorage.domain.observation import Access, Face
from moorage.gateway.limits import Limits
from moorage.upstream_auth import NO_AUTH

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def container() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Starts a server that gives everything to the handler; gives its base URL, which has a path."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/base/proxy"

    yield start
    for runner in runners:
        await runner.cleanup()


async def echo(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "line": f"{request.method} {request.raw_path}",
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": (await request.read()).decode(),
        },
        status=201,
    )


def call(house: Any, method: str, path: str, token: str = "ours", **options: Any) -> Any:
    url = URL(f"{house.base}/v1/deployments/{path}", encoded=True)
    headers = {"authorization": f"Bearer {token}"} | options.pop("headers", {})
    return house.session.request(method, url, headers=headers, allow_redirects=False, **options)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("body", [b"", b"some"])
async def test_any_method_and_path_passes(house: Any, container: Any, method: str, body: bytes) -> None:
    house.publish(await container(echo))
    headers = {"cookie": "a=1", "impersonate-user": "admin"}
    path = "digits/proxy/v2/a%2Fb/?q=%20&r"
    async with call(house, method, path, data=body or None, headers=headers) as response:
        assert response.status == 201
        assert response.headers["x-moorage-deployment"] == "dep_1"
        answer = await response.json()
    assert answer["line"] == f"{method} /base/proxy/v2/a%2Fb/?q=%20&r"
    assert answer["body"] == body.decode()
    assert not answer["headers"].keys() & {"authorization", "cookie", "impersonate-user"}
    assert house.gateway.meter.usage("dep_1").statuses == {201: 1}
    assert house.fell_through == []


async def test_a_head_has_the_head_only(house: Any, container: Any) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="twelve bytes", headers={"x-method": request.method})

    house.publish(await container(answer))
    async with call(house, "HEAD", "dep_1/proxy") as response:
        assert (response.status, response.headers["x-method"]) == (200, "HEAD")
        assert response.headers["content-length"] == "12"
        assert await response.read() == b""


async def test_both_bodies_are_streamed(house: Any, container: Any) -> None:
    seen = asyncio.Event()

    async def talk(request: web.Request) -> web.StreamResponse:
        assert await request.content.readany() == b"first"
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        await seen.wait()
        await response.write(b"two" + await request.content.read())
        return response

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await seen.wait()
        yield b"second"

    house.publish(await container(talk))
    async with asyncio.timeout(10), call(house, "PUT", "dep_1/proxy/x", data=body()) as response:
        assert await response.content.readany() == b"one"
        seen.set()
        assert await response.content.read() == b"twosecond"


async def test_a_redirect_leads_back_through_the_gateway(house: Any, container: Any) -> None:
    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"location": request.query["to"]})

    base = await container(redirect)
    house.publish(base)
    for to, expected in (
        ("/login", "/v1/deployments/dep_1/proxy/login"),
        ("/base/proxy/login", "/v1/deployments/dep_1/proxy/login"),
        (f"{base}/login", "/v1/deployments/dep_1/proxy/login"),
        ("https://example.org/", "https://example.org/"),
    ):
        async with call(house, "GET", f"digits/proxy/a?to={to}") as response:
            assert (response.status, response.headers["location"]) == (307, expected)


@pytest.mark.parametrize("path", ["dep_1/proxy/..%2f..", "dep_1/proxy/%2e%2e/secrets", "dep_1/proxy/x/%2E"])
async def test_what_would_leave_the_base_is_refused(
    house: Any, container: Any, problem: Any, path: str
) -> None:
    async def never(_: web.Request) -> web.Response:
        raise AssertionError

    house.publish(await container(never))
    async with call(house, "GET", path) as response:
        assert response.status == 400
        assert (await problem(response))["code"] == "path_not_allowed"


async def test_who_may_not_infer_may_not_pass(house: Any, container: Any, problem: Any) -> None:
    house.publish(await container(echo))
    for token, status in (("wrong", 401), ("viewer", 403), ("theirs", 404)):
        async with call(house, "GET", "dep_1/proxy/x", token) as response:
            assert response.status == status
            await problem(response)


@pytest.mark.parametrize("key", ["dep_2", "org%2Fdigits", "solo"])
async def test_only_an_id_or_a_name_is_a_deployment(
    house: Any, container: Any, problem: Any, key: str
) -> None:
    house.publish(await container(echo), models=("org/digits", "solo"))
    async with call(house, "GET", f"{key}/proxy/x") as response:
        assert response.status == 404
        assert (await problem(response))["code"] == "deployment_not_found"


async def test_a_method_that_no_container_needs_is_refused(house: Any, container: Any, problem: Any) -> None:
    house.publish(await container(echo))
    async with call(house, "TRACE", "dep_1/proxy/x") as response:
        assert response.status == 405
        assert "PATCH" in response.headers["allow"]
        await problem(response)


async def test_replicas_that_take_jobs_have_no_paths(house: Any, problem: Any) -> None:
    async def auth(_: Any) -> Any:
        return NO_AUTH

    house.gateway.out.auth = auth
    house.publish("http://127.0.0.1:1", access=Access(Face.JOBS))
    async with call(house, "GET", "dep_1/proxy/x") as response:
        assert response.status == 409
        assert (await problem(response))["code"] == "replicas_take_jobs"


@pytest.mark.parametrize("house", [Limits(body_bytes=1000)], indirect=True)
async def test_limits_hold_as_for_inferences(house: Any, container: Any, problem: Any) -> None:
    house.publish(await container(echo))
    async with call(house, "PUT", "dep_1/proxy/x", data=b"x" * 1001) as response:
        assert response.status == 413
        await problem(response)
    house.publish(phase=Phase.STOPPED)
    async with call(house, "GET", "dep_1/proxy/x") as response:
        assert response.status == 503
        assert (await problem(response))["code"] == "deployment_not_serving"


async def test_what_only_looks_like_it_falls_through(house: Any) -> None:
    for path in ("dep_1/proxies", "dep_1/events/proxy/x", "proxy"):
        async with call(house, "GET", path) as response:
            assert response.status == 299
    assert len(house.fell_through) == 3
