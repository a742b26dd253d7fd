"""Every answer has the id of its request, and so has every line that was logged for it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.e2e.api.conftest import Api, problem, whole_service

from .conftest import scraped

GIVEN = "from-the-caller/1"
BAD = ("", "with space", "x" * 129, "né", 'quote"d')


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/ready", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/v1/deployments", 200),
        ("GET", "/v1/deployments/dep_none", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/v1/deployments", 405),
        ("GET", "/v1/deployments?unknown=1", 422),
        ("POST", "/v1/deployments", 422),
        ("POST", "/v1/models/nothing/infer", 404),
        ("GET", "/v1/deployments/dep_none/proxy/x", 404),
        ("GET", "/deployments/model-deployments/none/", 404),
    ],
)
async def test_each_answer_has_it(api: Api, method: str, path: str, status: int) -> None:
    body = {"inputs": 1} if method in ("POST", "PUT") else None
    given = await api.owner.request(method, path, headers={"x-request-id": GIVEN}, json=body)
    assert given.status_code == status, given.text
    assert given.headers.get_list("x-request-id") == [GIVEN]
    made = [(await api.owner.request(method, path, json=body)).headers["x-request-id"] for _ in range(2)]
    assert len({*made, GIVEN}) == 3
    assert all(len(id_) == 32 for id_ in made)
    if given.headers["content-type"] == "application/problem+json":
        assert given.json()["request_id"] == GIVEN


async def test_what_is_no_id_is_not_taken(api: Api) -> None:
    for bad in BAD:
        for path in ("/health", "/v1/deployments/dep_none/proxy/x"):
            headers = {b"x-request-id": bad.encode("latin-1")}
            answer = await api.owner.get(path, headers=headers)
            assert answer.headers["x-request-id"] != bad
            assert len(answer.headers["x-request-id"]) == 32


async def test_refusals_before_the_router_have_it(api: Api) -> None:
    headers = {"x-request-id": GIVEN, "content-type": "application/json"}
    large = await api.owner.post("/v1/deployments", content=b"x" * (2 << 20), headers=headers)
    assert problem(large, 413)["request_id"] == GIVEN
    async with api.client(None) as anybody:
        refused = await anybody.get("/v1/deployments", headers=headers)
    assert problem(refused, 401)["request_id"] == GIVEN
    assert refused.headers["x-request-id"] == GIVEN


async def test_an_answer_to_a_bug_has_it_and_so_has_its_line(api: Api) -> None:
    async def broken(*args: Any) -> None:
        raise RuntimeError("a bug")

    api.service.store.deployments = broken  # type: ignore[method-assign,assignment]  # what stands for the store
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        answer = await api.owner.get("/v1/deployments", headers={"x-request-id": GIVEN})
    assert problem(answer, 500, "internal_error")["request_id"] == GIVEN
    (bug,) = [line for line in lines if line["event"] == "api.bug"]
    assert bug["request_id"] == GIVEN


async def test_every_request_of_the_control_plane_has_a_line_and_no_other(api: Api) -> None:
    id_ = await api.deploy()
    await api.until(id_, "ready")
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await asyncio.gather(
            *(api.owner.get(f"/v1/deployments/{id_}", headers={"x-request-id": f"r{i}"}) for i in range(20))
        )
        await api.owner.get("/health")
        await api.owner.get("/ready")
        await api.owner.get("/metrics")
        await api.owner.post(f"/v1/models/{id_}/infer", json={"inputs": [1]})
        logging.getLogger("x").warning("outside of any request")
    told = [line for line in lines if line["event"] == "api.request"]
    assert {line["request_id"] for line in told} == {f"r{i}" for i in range(20)}
    for line in told:
        assert line["route"] == "/v1/deployments/{deployment_id}"
        assert (line["method"], line["status"]) == ("GET", 200)
        assert 0 < line["ms"] < 60_000
        assert line["log_level"] == "info"
    assert structlog.contextvars.get_contextvars() == {}


async def test_a_tick_has_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_TICK_TOKEN", "a-token-of-the-platform")
    async with whole_service(tmp_path / "var") as api:
        for token, status in (("a-token-of-the-platform", 200), ("wrong", 401)):
            headers = {"x-request-id": GIVEN, "authorization": f"Bearer {token}"}
            answer = await api.owner.post("/internal/tick", headers=headers)
            assert answer.status_code == status, answer.text
            assert answer.headers.get_list("x-request-id") == [GIVEN]
        assert answer.json()["request_id"] == GIVEN
        counted = await scraped(api.url)
    assert counted.value("moorage_api_requests_total", route="/internal/tick", method="POST") == 2
