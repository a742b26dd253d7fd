"""The whole service, looked at from outside: its metrics as Prometheus reads them, its traces as a collector
gets them, its log as it is written."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.api.conftest import Api, whole_service

SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gauge": ("",),
    "info": ("_info",),
}


@dataclass(frozen=True)
class Scraped:
    families: Mapping[str, Metric]

    @property
    def names(self) -> set[str]:
        """Of every series that can be asked for, those without a sample yet too."""
        return {f.name + suffix for f in self.families.values() for suffix in SUFFIXES[f.type]}

    def labels(self, name: str) -> set[str]:
        """Of all samples of that name."""
        found = (s for f in self.families.values() for s in f.samples if s.name == name)
        return {label for sample in found for label in sample.labels}

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples with these labels; 0 when there is none."""
        assert name in self.names, name
        samples = (s for f in self.families.values() for s in f.samples if s.name == name)
        return sum(s.value for s in samples if labels.items() <= s.labels.items())


async def scraped(url: str) -> Scraped:
    async with httpx.AsyncClient(base_url=url) as prometheus:
        answer = await prometheus.get("/metrics")
    assert answer.status_code == 200
    families: dict[str, Metric] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.name not in families, f"{family.name} is told twice"
        families[family.name] = family
    return Scraped(families)


async def until(wanted: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not wanted():  # noqa: ASYNC110 - what is waited for happens in other threads and processes
            await asyncio.sleep(0.02)


@dataclass
class Collector:
    """Takes OTLP over HTTP, and keeps what it was sent; refuses with `status` while that is not 200."""

    url: str = ""
    status: int = 200
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)

    def of(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id.hex() == trace_id]

    def named(self, trace_id: str, name: str) -> list[Span]:
        return [span for span in self.of(trace_id) if span.name == name]

    async def take(self, request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        if self.status == 200:
            for resource in sent.resource_spans:
                told = {a.key: a.value.string_value for a in resource.resource.attributes}
                self.services.add(told["service.name"])
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response(status=self.status, content_type="application/x-protobuf")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    found = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", found.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    found.url = f"http://{host}:{port}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with whole_service(tmp_path / "var") as found:
        yield found


@pytest.fixture
def traced(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], contextlib.AbstractAsyncContextManager[Api]]:
    """Begins a service that traces; every time on the same store."""
    monkeypatch.setenv("MOORAGE_OTLP_ENDPOINT", collector.url)
    return lambda: whole_service(tmp_path / "var")
