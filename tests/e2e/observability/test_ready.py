"""Alive and ready: two questions, whose answers part when something is wrong."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from moorage.errors import StoreUnavailable
from tests.e2e.api.conftest import Api, problem

from .conftest import scraped, until


async def asked(api: Api) -> httpx.Response:
    async with api.client(None) as anybody:
        assert (await anybody.get("/health")).status_code == 200  # whatever happens
        return await anybody.get("/ready")


def break_store(api: Api, error: BaseException | None, *calls: str) -> None:
    """The store's calls raise; with None they never answer."""

    async def broken(*args: Any, **kwargs: Any) -> Any:
        if error is None:
            await asyncio.Event().wait()
        raise error  # type: ignore[misc]  # one of the two

    for call in calls:
        setattr(api.service.store, call, broken)


async def ready_again(api: Api, expected: int = 200) -> httpx.Response:
    async with asyncio.timeout(10):
        while True:
            answer = await asked(api)
            if answer.status_code == expected:
                return answer
            await asyncio.sleep(0.05)


async def test_a_service_that_works_is_ready(api: Api) -> None:
    answer = await asked(api)
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "checks": {"store": "ok", "engine": "ok"}}
    found = await scraped(api.url)
    assert found.value("moorage_ready", check="store") == 1
    assert found.value("moorage_ready", check="engine") == 1


async def test_a_store_that_is_away_is_named_and_comes_back(api: Api) -> None:
    await asked(api)
    break_store(api, StoreUnavailable("at secret-host:5432"), "idempotency_record")
    told = problem(await ready_again(api, 503), 503, "not_ready")
    assert told["checks"] == {"store": "It cannot be reached.", "engine": "ok"}
    assert "secret-host" not in str(told)
    assert (await scraped(api.url)).value("moorage_ready", check="store") == 0
    del api.service.store.__dict__["idempotency_record"]  # the real one is below
    assert (await ready_again(api)).json()["checks"]["store"] == "ok"


async def test_a_store_that_does_not_answer_is_waited_for_no_longer_than_told(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asked(api)
    break_store(api, None, "idempotency_record")
    told = problem(await ready_again(api, 503), 503, "not_ready")
    assert "has not answered" in told["checks"]["store"]
    began = time.monotonic()
    problem(await asked(api), 503)  # the question that is still open is not put again
    assert time.monotonic() - began < 1.5


async def test_an_engine_that_dies_again_and_again_is_not_ready(api: Api) -> None:
    break_store(api, RuntimeError("a bug"), "claim_deployments")
    api.service.engine.wake()
    await until(lambda: api.service.engine.pulse.trouble() is not None)
    told = problem(await asked(api), 503, "not_ready")
    assert told["checks"]["store"] == "ok"
    assert "died" in told["checks"]["engine"]
    assert (await scraped(api.url)).value("moorage_task_failures_total", task="engine") >= 1


async def test_an_engine_that_stands_still_is_not_ready(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.engine.pulse.GRACE", 0.2)
    break_store(api, None, "claim_deployments")
    api.service.engine.wake()
    await until(lambda: api.service.engine.pulse.trouble() is not None)
    told = problem(await asked(api), 503, "not_ready")
    assert "has not come round" in told["checks"]["engine"]
