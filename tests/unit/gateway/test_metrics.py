"""What Prometheus reads: judged by its own client's parser, and against what was really carried."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from moorage.gateway import metrics
from moorage.gateway.metering import Meter
from moorage.gateway.proxy import Gateway
from moorage.gateway.routes import RoutePublisher

PREFIX = "moorage_gateway"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """Every sample once, by its name and labels."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"{PREFIX}_{name}", frozenset(labels.items())


def written(meter: Meter) -> Samples:
    return parsed(b"".join(metrics.exposition(meter.tallies())).decode())


async def scraped(house: Any) -> Samples:
    async with house.session.get(f"{house.base}/metrics") as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        return parsed(await response.text())


async def test_what_was_carried_is_told(house: Any, worker: Any) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if await request.read() == b"slow":
            begun.set()
            await go.wait()
        return web.Response(status=201)

    house.publish(await worker(answer))
    for _ in range(3):
        async with house.infer(data=b"x") as response:
            assert response.status == 201
    slow = asyncio.create_task(house.infer(data=b"slow"))
    await begun.wait()
    found = await scraped(house)
    assert found[key("requests_total", deployment="dep_1", code="201")] == 3
    assert found[key("requests_in_flight", deployment="dep_1")] == 1
    assert found[key("request_duration_seconds_count", deployment="dep_1")] == 3
    go.set()
    await slow
    found = await scraped(house)
    assert found[key("requests_total", deployment="dep_1", code="201")] == 4
    assert found[key("requests_in_flight", deployment="dep_1")] == 0


async def test_a_deleted_deployments_series_are_gone(house: Any, worker: Any) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    target = await worker(answer)
    for id_ in ("dep_1", "dep_2"):
        house.publish(target, deployment_id=id_, name=id_)
        async with house.infer(id_, data=b"x") as response:
            assert response.status == 200
    house.routes.drop("dep_1")
    labels = [dict(labels) for _, labels in await scraped(house)]
    assert {label["deployment"] for label in labels} == {"dep_2"}


async def test_nothing_but_ids_and_numbers_is_told(house: Any, worker: Any) -> None:
    house.publish(name="secret-name", models=("org/secret",))
    async with house.infer("secret-name", data=b"x") as response:
        assert response.status == 503
    async with house.session.get(f"{house.base}/metrics") as response:
        text = await response.text()
    assert "dep_1" in text
    for hidden in ("secret", "org_ours", "key_1"):
        assert hidden not in text


async def test_it_can_be_switched_off() -> None:
    reached = []

    async def fallback(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])

    def nobody(_: Any) -> Any:
        raise AssertionError

    gateway = Gateway(RoutePublisher(), nobody, fallback, metrics=False)
    await gateway({"type": "http", "method": "GET", "path": "/metrics"}, None, None)  # type: ignore[arg-type]
    assert reached == ["/metrics"]


def test_nothing_carried_is_no_series() -> None:
    assert written(Meter()) == {}


@given(st.lists(st.floats(0, 1000), max_size=30))
def test_a_histogram_counts_what_is_below_each_bound(latencies: list[float]) -> None:
    meter = Meter()
    for seconds in latencies:
        meter.begin("dep_1").end(200, seconds)
    found = written(meter)
    counts = sorted(
        (float(dict(labels)["le"]), count)
        for (name, labels), count in found.items()
        if name == f"{PREFIX}_request_duration_seconds_bucket"
    )
    if not latencies:
        assert counts == []
        return
    assert counts[-1] == (float("inf"), len(latencies))
    for bound, count in counts:
        # a bound is written with six digits: what lies within the rest of it may be on either side
        below = sum(seconds < bound * (1 - 1e-5) for seconds in latencies)
        assert below <= count <= sum(seconds <= bound * (1 + 1e-5) for seconds in latencies)
    assert found[key("request_duration_seconds_sum", deployment="dep_1")] == pytest.approx(sum(latencies))


def test_ten_thousand_deployments_come_in_pieces() -> None:
    meter = Meter()
    for i in range(10_000):
        meter.begin(f"dep_{i:026}").end(200, 0.01 * i)
    pieces = list(metrics.exposition(meter.tallies()))
    assert len(pieces) > 300
    assert max(map(len, pieces)) < 1 << 20
