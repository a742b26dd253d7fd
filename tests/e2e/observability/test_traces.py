"""One trace for each deployment, from the call that creates it to its last webhook, whoever works on it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from moorage.domain.naming import uuid_of
from moorage.errors import Retry
from moorage.main import running
from moorage.settings import Settings
from tests.e2e.api.conftest import Api, whole_service

from .conftest import Collector, until

Begin = Callable[[], contextlib.AbstractAsyncContextManager[Api]]


def told(span: Any) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in span.attributes}


async def test_a_deployments_life_is_one_tree(traced: Begin, collector: Collector) -> None:
    caller, parent = secrets.token_hex(16), secrets.token_hex(8)
    async with traced() as api:
        api.compute.faults.raise_next("create", Retry("not now", after=0.01))
        api.owner.headers["traceparent"] = f"00-{caller}-{parent}-01"
        id_ = await api.deploy(user_webhook_url=api.receiver.hook, provider="fake")
        del api.owner.headers["traceparent"]
        await api.until(id_, "ready")
        await api.settled(id_)
    trace = uuid_of(id_).hex
    spans = collector.of(trace)
    assert collector.services == {"moorage"}

    (root,) = [span for span in spans if not span.parent_span_id]
    assert root.name == "create deployment"
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in root.links] == [(caller, parent)]
    assert {span.parent_span_id for span in spans} == {b"", root.span_id}
    assert len({span.span_id for span in spans}) == len(spans)
    assert {told(span)["moorage.subject"] for span in spans} == {id_}

    creates = collector.named(trace, "effect create")
    assert [told(span)["moorage.outcome"] for span in creates] == ["later", "created"]
    assert {told(span)["moorage.provider"] for span in creates} == {"fake"}
    assert [span.status.code for span in creates] == [2, 0]  # an error, and unset
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for span in spans)
    assert {span.name for span in spans} >= {"effect validate", "effect place", "effect look", "webhook"}

    entered = [
        {a.key: a.value.string_value for a in event.attributes}["moorage.phase"]
        for span in sorted(collector.named(trace, "change"), key=lambda span: span.start_time_unix_nano)
        for event in span.events
    ]
    assert entered == ["selecting_gpu", "creating_endpoint", "loading_model", "ready"]

    webhooks = {span.span_id.hex() for span in collector.named(trace, "webhook")}
    sent = [message.headers["traceparent"].split("-") for message in api.receiver.messages]
    assert {(version, trace_id, flags) for version, trace_id, _, flags in sent} == {("00", trace, "01")}
    assert {span_id for _, _, span_id, _ in sent} == webhooks


async def test_another_process_goes_on_with_the_trace(traced: Begin, collector: Collector) -> None:
    async with traced() as first:
        id_ = await first.deploy(provider="fake")
        await first.until(id_, "ready")
        compute = first.compute
    trace = uuid_of(id_).hex
    (root,) = collector.named(trace, "create deployment")
    assert collector.named(trace, "effect remove") == []
    async with traced() as second:
        second.compute.endpoints.update(compute.endpoints)
        await second.owner.delete(f"/v1/deployments/{id_}")
        await second.until(id_, "deleted")
    assert collector.named(trace, "create deployment") == [root]
    (removed,) = collector.named(trace, "effect remove")
    assert removed.parent_span_id == root.span_id


async def test_looks_at_what_serves_leave_no_spans(traced: Begin, collector: Collector) -> None:
    async with traced() as api:
        id_ = await api.deploy(provider="fake")
        await api.until(id_, "ready")
        observed = api.compute.calls["observe"]
        for _ in range(5):
            api.compute.notify(next(iter(api.compute.endpoints)))
            api.service.engine.signal(id_)
            await asyncio.sleep(0.05)
        await until(lambda: api.compute.calls["observe"] > observed + 1)
    looks = collector.named(uuid_of(id_).hex, "effect look")
    assert 0 < len(looks) <= observed


async def test_a_jobs_webhook_is_in_the_trace_of_its_deployment(traced: Begin, collector: Collector) -> None:
    async with traced() as api:
        id_ = await api.deploy(provider="fake")
        await api.until(id_, "ready")
        body = {"input": {"inputs": 1}, "webhook": api.receiver.hook}
        assert (await api.owner.post(f"/v2/{id_}/run", json=body)).status_code == 200
        await api.receiver.until(lambda messages: len(messages) == 1)
    (span,) = collector.named(uuid_of(id_).hex, "webhook")
    assert span.span_id.hex() in api.receiver.messages[0].headers["traceparent"]


async def test_a_dead_collector_costs_a_line_and_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("MOORAGE_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("moorage.adapters.telemetry.BATCH_SECONDS", 0.1)
    with structlog.testing.capture_logs() as lines:
        async with whole_service(tmp_path / "var") as api:
            id_ = await api.deploy(user_webhook_url=api.receiver.hook)
            await api.until(id_, "ready")
            await until(lambda: any(line["event"] == "traces.collector_away" for line in lines))
            other = await api.deploy()
            await api.until(other, "ready")
            began = time.monotonic()
        assert time.monotonic() - began < 15
    assert [line["event"] for line in lines].count("traces.collector_away") == 1


async def test_a_collector_that_comes_back_is_told_of(
    traced: Begin, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.adapters.telemetry.BATCH_SECONDS", 0.1)
    collector.status = 400
    with structlog.testing.capture_logs() as lines:
        async with traced() as api:
            await api.deploy()
            await until(lambda: any(line["event"] == "traces.collector_away" for line in lines))
            collector.status = 200
            id_ = await api.deploy()
            await api.until(id_, "ready")
            await until(lambda: any(line["event"] == "traces.collector_back" for line in lines))
    (back,) = [line for line in lines if line["event"] == "traces.collector_back"]
    assert back["spans_lost"] > 0
    assert collector.of(uuid_of(id_).hex)


async def test_without_a_collector_nothing_is_sent_and_nothing_is_loaded(api: Api) -> None:
    id_ = await api.deploy(user_webhook_url=api.receiver.hook)
    await api.until(id_, "ready")
    await api.settled(id_)
    assert all("traceparent" not in message.headers for message in api.receiver.messages)


async def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "moorage.adapters.telemetry", None)
    settings = Settings(_env_file=None, data_dir=tmp_path, otlp_endpoint="http://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"moorage\[otel\]"):
        async with running(settings, "http://127.0.0.1:1", providers={}):
            pass
