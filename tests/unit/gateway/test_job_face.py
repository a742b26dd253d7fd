"""A request to a model that takes jobs: what becomes of it, and what of all that a job API can answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from moorage.domain.observation import Access, Face
from moorage.gateway.job_face import Pending, result_of
from moorage.upstream_auth import UpstreamAuth

JOBS = Access(Face.JOBS, bearer="api_key")
KEY = "rpa_the_owners_key"


class JobApi:
    """Answers `/runsync` and `/status` with what it is told to, in order; the last answer stays."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, bytes]] = []
        self.cancelled = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.Response:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        self.asked.append((request.method, request.path, await request.read()))
        if request.path.startswith("/ep/cancel/"):
            self.cancelled.set()
            return web.json_response({"id": "j1", "status": "CANCELLED"})
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type="application/json")


@pytest.fixture
async def serve(house: Any) -> AsyncIterator[Callable[..., Awaitable[JobApi]]]:
    runners: list[web.AppRunner] = []

    async def auth(route: Any) -> UpstreamAuth:
        return UpstreamAuth(KEY)

    async def begin(*answers: tuple[int, Any]) -> JobApi:
        api, app = JobApi(*answers), web.Application()
        app.router.add_route("*", "/ep/{rest:.+}", api)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        house.gateway.out.auth = auth
        port = runner.addresses[0][1]
        house.publish(f"http://127.0.0.1:{port}/ep", access=JOBS, credential_id="crd_1")
        return api

    yield begin
    for runner in runners:
        await runner.cleanup()


def job(status: str, **more: Any) -> tuple[int, Any]:
    return 200, {"id": "j1", "status": status, **more}


async def test_the_output_is_the_answer(house: Any, serve: Any) -> None:
    api = await serve(job("COMPLETED", output={"outputs": [1]}))
    async with house.infer(data=b'{"inputs": "x"}') as response:
        assert (response.status, await response.json()) == (200, {"outputs": [1]})
        assert response.headers["x-moorage-deployment"] == "dep_1"
    ((method, path, body),) = api.asked
    assert (method, path, json.loads(body)) == ("POST", "/ep/runsync", {"input": {"inputs": "x"}})


async def test_a_longer_job_is_asked_after_through_passing_trouble(house: Any, serve: Any) -> None:
    api = await serve(
        job("IN_QUEUE"), (429, {}), (502, "bad gateway"), job("IN_PROGRESS"), job("COMPLETED", output=7)
    )
    async with house.infer(data=b"{}") as response:
        assert await response.json() == 7
    assert [path for _, path, _ in api.asked[1:]] == ["/ep/status/j1"] * 4


@pytest.mark.parametrize(
    ("answer", "status", "code", "says"),
    [
        (
            job(
                "FAILED", error=json.dumps({"status": 422, "code": "invalid_request", "detail": "inputs: no"})
            ),
            422,
            "invalid_request",
            "inputs: no",
        ),
        (job("FAILED", error=json.dumps({"error_message": "boom"})), 502, "job_failed", "boom"),
        (job("FAILED", error="plain words"), 502, "job_failed", "plain words"),
        (job("FAILED"), 502, "job_failed", "no cause"),
        (job("TIMED_OUT"), 504, "job_timed_out", "longer"),
        (job("CANCELLED"), 502, "job_not_completed", "CANCELLED"),
        ((401, {}), 502, "provider_key_refused", "account"),
        ((404, {}), 503, "endpoint_gone", "gone"),
        ((429, {}), 503, "provider_rate_limit", "slow down"),
        ((500, "oops"), 502, "provider_failed", "oops"),
        ((200, "<html>"), 502, "provider_failed", "not JSON"),
        ((200, "[]"), 502, "provider_failed", "no job"),
    ],
)
async def test_every_failure_is_a_problem_that_says_why(
    house: Any, serve: Any, answer: tuple[int, Any], status: int, code: str, says: str
) -> None:
    await serve(answer)
    async with house.infer(data=b"{}") as response:
        found = await response.json()
    assert (response.status, found["code"]) == (status, code)
    assert says in found["detail"]
    assert KEY not in str(found)


async def test_what_is_no_json_is_refused_here(house: Any, serve: Any) -> None:
    api = await serve(job("COMPLETED"))
    async with house.infer(data=b"{") as response:
        assert (response.status, (await response.json())["code"]) == (400, "invalid_json")
    assert api.asked == []


async def test_a_caller_who_leaves_takes_the_job_along(house: Any, serve: Any) -> None:
    api = await serve(job("IN_PROGRESS"))
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.5), house.infer(data=b"{}"):
            pass
    async with asyncio.timeout(5):
        await api.cancelled.wait()


def test_a_job_that_waits_is_no_result() -> None:
    assert result_of({"id": "j", "status": "IN_QUEUE"}) == Pending("j")
    assert result_of({"id": "j", "status": "RUNNING"}) == Pending("j")
