"""What a replica's answer makes of a job, on both faces."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any  # a job's input

import pytest
from aiohttp import web

from moorage.domain.job import (
    BrokenOff,
    Ending,
    Job,
    NotServing,
    NotTaken,
    Output,
    Refusal,
)
from moorage.domain.observation import Access, Face
from moorage.errors import BadGateway
from moorage.gateway import job_replicas
from moorage.gateway.job_replicas import JobReplicas
from moorage.gateway.routes import Route, RoutePublisher, RouteTable
from moorage.upstream_auth import UpstreamAuth

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PLAIN = Access()
JOB = Job("job-1-u1", "org", "dep", datetime(2026, 1, 1, tzinfo=UTC))


class Replica:
    """Answers everything with `handler`; keeps what came."""

    def __init__(self) -> None:
        self.url = ""
        self.handler: Handler | None = None
        self.seen: list[tuple[str, dict[str, str], Any]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((f"{request.method} {request.path_qs}", headers, await request.text()))
        assert self.handler is not None
        return await self.handler(request)


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    found = Replica()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


async def ask(
    replica: Replica,
    answer: web.Response | Handler,
    text: str = "{}",
    access: Access = PLAIN,
    token: str | None = None,
) -> Ending:
    async def fixed(_: web.Request) -> web.StreamResponse:
        assert isinstance(answer, web.Response)
        return answer

    async def auth(route: Route) -> UpstreamAuth:
        if token is None and route.access.needs_credentials:
            raise BadGateway("removed", code="provider_key_missing")
        return UpstreamAuth(token)

    replica.handler = fixed if isinstance(answer, web.Response) else answer
    route = Route("dep", "org", "name", targets=(replica.url,), access=access)
    replicas = JobReplicas(RoutePublisher(RouteTable([route])), auth)
    try:
        return await replicas.run(JOB, text)
    finally:
        await replicas.aclose()


def told(ending: Ending) -> dict[str, Any]:
    assert isinstance(ending, Refusal | BrokenOff)
    found: dict[str, Any] = json.loads(ending.error)
    assert found["title"]
    return found


async def test_the_input_is_the_body_and_the_body_the_output(replica: Replica) -> None:
    body = '{"outputs": [1.0, "é"]}'
    ending = await ask(replica, web.Response(text=body, content_type="application/json"), '{"inputs":1}')
    assert ending == Output(body)
    [(line, headers, sent)] = replica.seen
    assert (line, sent) == ("POST /infer", '{"inputs":1}')
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"] == "job-1-u1"
    assert "authorization" not in headers


async def test_what_is_no_json_is_wrapped(replica: Replica) -> None:
    ending = await ask(replica, web.Response(body=b"\x89PNG\xff", content_type="image/png"))
    assert isinstance(ending, Output)
    wrapped = json.loads(ending.text)
    assert wrapped == {
        "content_type": "image/png",
        "base64": base64.b64encode(b"\x89PNG\xff").decode(),
    }


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b'"\xff"', b"{} {}", b"[" * 100_000])
async def test_json_that_is_none_is_a_failure(replica: Replica, body: bytes) -> None:
    ending = await ask(replica, web.Response(body=body, content_type="application/json"))
    assert told(ending)["code"] == "output_no_json"


async def test_an_answer_has_a_size(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_replicas, "OUTPUT_BYTES", 1000)
    fits = await ask(replica, web.json_response("x" * 998))
    assert isinstance(fits, Output)
    too_large = await ask(replica, web.json_response("x" * 999))
    assert told(too_large)["code"] == "output_too_large"


@pytest.mark.parametrize("status", [400, 404, 413, 422, 500, 502])
async def test_a_problem_of_the_model_is_the_error_as_it_is(replica: Replica, status: int) -> None:
    problem = {"status": status, "title": "No", "detail": "Because.", "code": "x", "errors": [], "more": 1}
    answer = web.Response(status=status, text=json.dumps(problem), content_type="application/problem+json")
    assert told(await ask(replica, answer)) == problem


@pytest.mark.parametrize("body", [b"", b"Internal Server Error", b'{"error": 1}', b"\xff\xfe", b"x" * 10**6])
async def test_any_other_failure_becomes_a_problem(replica: Replica, body: bytes) -> None:
    found = told(await ask(replica, web.Response(status=500, body=body)))
    assert (found["status"], found["code"]) == (500, "model_error")
    assert len(json.dumps(found)) < 13_000


async def test_a_redirect_is_not_followed(replica: Replica) -> None:
    answer = web.Response(status=307, headers={"location": f"{replica.url}/elsewhere"})
    assert told(await ask(replica, answer))["status"] == 307
    assert len(replica.seen) == 1


@pytest.mark.parametrize(("after", "seconds"), [("7", 7.0), ("soon", None), (None, None)])
@pytest.mark.parametrize("status", [429, 503])
async def test_not_now_is_not_taken(
    replica: Replica, status: int, after: str | None, seconds: float | None
) -> None:
    headers = {} if after is None else {"retry-after": after}
    assert await ask(replica, web.Response(status=status, headers=headers)) == NotTaken(seconds)


async def test_an_answer_that_breaks_off(replica: Replica) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    ending = await ask(replica, handler)
    assert isinstance(ending, BrokenOff)
    assert told(ending)["code"] == "replica_failed"


async def test_nobody_there() -> None:
    async def auth(_: Route) -> UpstreamAuth:
        raise AssertionError

    routes = RoutePublisher(RouteTable([Route("dep", "org", "name")]))
    replicas = JobReplicas(routes, auth)
    assert replicas.places("dep") == replicas.places("unknown") == 0
    assert await replicas.run(JOB, "1") == NotServing()
    routes.publish(routes.current.without("dep"))
    assert await replicas.run(JOB, "1") == NotServing()


# -- replicas that take jobs --------------------------------------------------------------------------------

JOBS = Access(Face.JOBS, "api_key")


async def test_a_replica_that_takes_jobs_gets_one(replica: Replica) -> None:
    done = {"id": "x", "status": "COMPLETED", "output": {"outputs": "é"}}
    ending = await ask(replica, web.json_response(done), '{"inputs":1}', JOBS, "rpa_key")
    assert isinstance(ending, Output)
    assert json.loads(ending.text) == {"outputs": "é"}
    [(line, headers, sent)] = replica.seen
    assert line.startswith("POST /runsync?wait=")
    assert json.loads(sent) == {"input": {"inputs": 1}}
    assert headers["authorization"] == "Bearer rpa_key"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (
            {"status": "FAILED", "error": '{"status": 422, "title": "No", "detail": "x", "code": "bad"}'},
            "bad",
        ),
        ({"status": "FAILED", "error": "Traceback"}, "job_failed"),
        ({"status": "CANCELLED"}, "job_not_completed"),
        ({"status": "TIMED_OUT"}, "job_timed_out"),
    ],
)
async def test_its_failure_is_the_jobs(replica: Replica, answer: dict[str, Any], code: str) -> None:
    ending = await ask(replica, web.json_response(answer), access=JOBS, token="rpa_key")
    assert told(ending)["code"] == code


async def test_a_key_that_is_refused_or_gone_is_a_failure(replica: Replica) -> None:
    refused = await ask(replica, web.Response(status=401), access=JOBS, token="rpa_key")
    assert told(refused)["code"] == "provider_key_refused"
    gone = await ask(replica, web.Response(), access=JOBS)
    assert told(gone)["code"] == "provider_key_missing"
    assert "rpa_key" not in str((refused, gone))


async def test_its_rate_limit_is_not_now(replica: Replica) -> None:
    answer = web.Response(status=429, headers={"retry-after": "3"})
    assert await ask(replica, answer, access=JOBS, token="rpa_key") == NotTaken(3.0)


async def test_a_job_api_that_cannot_be_connected_is_not_now(replica: Replica) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        replica.url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert await ask(replica, web.Response(), access=JOBS, token="rpa_key") == NotTaken()


async def test_who_is_cancelled_takes_the_request_along(replica: Replica) -> None:
    came, left = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        came.set()
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        left.set()
        return web.Response()

    asking = asyncio.create_task(ask(replica, handler))
    await asyncio.wait_for(came.wait(), 10)
    asking.cancel()
    await asyncio.wait_for(left.wait(), 10)
    with pytest.raises(asyncio.CancelledError):
        await asking
