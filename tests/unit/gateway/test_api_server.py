"""What an API server answers itself, told apart from what a replica behind it answers."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import trustme
from aiohttp import web

from moorage.domain.job import Ending, Job, NotTaken, Refusal
from moorage.domain.observation import Access, Face
from moorage.gateway.job_replicas import JobReplicas
from moorage.gateway.routes import Route, RoutePublisher, RouteTable
from moorage.upstream_auth import UpstreamAuth

JOB = Job("job-1-u1", "org", "dep_1", datetime(2026, 1, 1, tzinfo=UTC))


def status(code: int, message: str = 'services "mrg-secret" says no') -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "code": code,
    }


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, UpstreamAuth, Callable[[int, Any], None]]]:
    """Answers everything with the status and body that it is told to."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ours = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    answer: tuple[int, Any] = (200, {})

    def tell(code: int, body: Any) -> None:
        nonlocal answer
        answer = (code, body)

    async def serve(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(answer[1], status=answer[0])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"https://127.0.0.1:{runner.addresses[0][1]}", UpstreamAuth("token", ours), tell
    await runner.cleanup()


def give(house: Any, auth: UpstreamAuth) -> None:
    async def given(_: Route) -> UpstreamAuth:
        return auth

    house.gateway.out.auth = given


@pytest.mark.parametrize(
    ("code", "answered", "told"),
    [
        (401, 502, "provider_key_refused"),
        (403, 502, "provider_key_refused"),
        (404, 503, "replicas_unreachable"),
        (503, 503, "replicas_unreachable"),
    ],
)
async def test_its_own_refusal_is_our_problem_and_names_nothing_of_the_cluster(
    house: Any, server: Any, problem: Any, code: int, answered: int, told: str
) -> None:
    url, auth, tell = server
    give(house, auth)
    tell(code, status(code))
    house.publish(url, access=Access(bearer="token", authority="ca"))
    async with house.infer(data=b"x") as response:
        assert response.status == answered
        document = await problem(response)
    assert document["code"] == told
    assert "mrg-secret" not in str(document)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 503])
@pytest.mark.parametrize("body", [{"kind": "Status"}, {"detail": "mine"}, [], "text", {"long": "x" * 20_000}])
async def test_a_replicas_answer_passes_as_it_is(house: Any, server: Any, code: int, body: Any) -> None:
    url, auth, tell = server
    give(house, auth)
    tell(code, body)
    house.publish(url, access=Access(bearer="token", authority="ca"))
    async with house.infer(data=b"x") as response:
        assert (response.status, json.loads(await response.read())) == (code, body)


async def test_where_no_api_server_is_there_is_no_answer_of_one(house: Any, worker: Any) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response(status(403), status=403)

    house.publish(await worker(refuse))
    async with house.infer(data=b"x") as response:
        assert (response.status, await response.json()) == (403, status(403))


@pytest.mark.parametrize("face", list(Face))
async def test_jobs_are_begun_again_or_refused_for_the_right_cause(server: Any, face: Face) -> None:
    url, tell = server[0], server[2]
    auth: UpstreamAuth = server[1]

    async def given(_: Route) -> UpstreamAuth:
        return auth

    async def run() -> Ending:
        return await replicas.run(JOB, "1")

    access = Access(face, bearer="token", authority="ca")
    replicas = JobReplicas(
        RoutePublisher(RouteTable([Route("dep_1", "o", "n", targets=(url,), access=access)])), given
    )
    tell(503, status(503))
    assert isinstance(await run(), NotTaken)
    tell(404, status(404))
    assert isinstance(await run(), NotTaken)
    tell(401, status(401))
    refused = await run()
    assert isinstance(refused, Refusal)
    assert json.loads(refused.error)["code"] == "provider_key_refused"
    if face is Face.HTTP:
        tell(404, {"status": 404, "title": "Mine", "code": "own"})
        own = await run()
        assert isinstance(own, Refusal)
        assert json.loads(own.error) == {"status": 404, "title": "Mine", "code": "own"}
    await replicas.aclose()
