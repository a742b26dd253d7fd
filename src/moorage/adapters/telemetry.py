"""Traces by OpenTelemetry, sent as OTLP over HTTP from a thread of their own.

The trace of a deployment has the 128 bits of the deployment's id for its own, and its root span an id that
follows from them. So spans of several processes, and of a process before and after a restart, come together
in one tree, and nothing about traces is kept in the store.

A collector that is slow or dead holds up nobody: spans wait in a bounded queue, the newest stay, and the log
says once that they are lost and once that they arrive again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from urllib.parse import urlsplit, urlunsplit

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from moorage import __version__
from moorage.domain.naming import uuid_of
from moorage.ports.telemetry import NO_SPAN, Span

log = structlog.get_logger(__name__)

TRY_SECONDS = 3.0  # to hand over one batch
CLOSE_SECONDS = 2.0  # to hand over the rest when the service ends
BATCH_SECONDS = 1.0
_PATH = "/v1/traces"
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def root_of(subject_id: str) -> SpanContext:
    """The trace and the root span of a deployment. Raises ValueError for an id that is not ours."""
    trace_id = uuid_of(subject_id).int
    span_id = int.from_bytes(hashlib.sha256(f"root {subject_id}".encode()).digest()[:8])
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=_SAMPLED)


class OtelTraces:
    """A `moorage.ports.telemetry.Traces`. Belongs to one event loop."""

    def __init__(self, exporter: SpanExporter, service_instance: str) -> None:
        self._telling = _Telling(exporter)
        self._ids = _Ids()
        attributes = {
            "service.name": "moorage",
            "service.version": __version__,
            "service.instance.id": service_instance,
        }
        self._provider = TracerProvider(
            resource=Resource.create(attributes), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(self._telling, schedule_delay_millis=BATCH_SECONDS * 1e3)
        )
        self._tracer = self._provider.get_tracer("moorage", __version__)
        self._caller: ContextVar[SpanContext | None] = ContextVar("moorage_caller", default=None)

    @classmethod
    def open(cls, endpoint: str, service_instance: str) -> OtelTraces:
        """`endpoint` is a collector's base URL, or the whole URL for traces."""
        parts = urlsplit(endpoint)
        url = urlunsplit(parts._replace(path=_PATH)) if parts.path in ("", "/") else endpoint
        # The library tells of each try, from a thread; ours tells of the first failure, and of its end.
        for noisy in ("opentelemetry.exporter", "opentelemetry.sdk"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        return cls(OTLPSpanExporter(url, timeout=TRY_SECONDS), service_instance)

    def begin(self, subject_id: str, name: str, **attributes: str) -> Span:
        try:
            root = root_of(subject_id)
        except ValueError:
            return NO_SPAN
        parent = trace.set_span_in_context(NonRecordingSpan(root), Context())
        told = {"moorage.subject": subject_id, **_named(attributes)}
        return _OtelSpan(self._tracer.start_span(name, parent, SpanKind.INTERNAL, told))

    def accepted(self, subject_id: str, name: str, seconds: float) -> None:
        caller = self._caller.get()
        now = time.time_ns()
        with contextlib.suppress(ValueError), self._ids.next_are(root_of(subject_id)):
            span = self._tracer.start_span(
                name,
                Context(),
                SpanKind.SERVER,
                {"moorage.subject": subject_id},
                [] if caller is None else [Link(caller)],
                start_time=now - int(seconds * 1e9),
            )
            span.end(now)

    def caused_by(self, traceparent: str) -> None:
        context = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
        caller = trace.get_current_span(context).get_span_context()
        if caller.is_valid:
            self._caller.set(caller)

    async def aclose(self) -> None:
        """Hands over what is left, unless the collector takes too long."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop did not wait for us
                loop.call_soon_threadsafe(over.set)

        threading.Thread(target=close, name="traces:close", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await over.wait()


class _OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def event(self, name: str, **attributes: str) -> None:
        self._span.add_event(name, _named(attributes))

    def end(self, outcome: str, *, failed: bool = False) -> None:
        self._span.set_attribute("moorage.outcome", outcome)
        if failed:
            self._span.set_status(Status(StatusCode.ERROR, outcome))
        self._span.end()


class _Ids(RandomIdGenerator):
    """Random ids, but for a root, whose ids are given."""

    def __init__(self) -> None:
        self._given: SpanContext | None = None

    @contextlib.contextmanager
    def next_are(self, given: SpanContext) -> Iterator[None]:
        self._given = given
        try:
            yield
        finally:
            self._given = None

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() if self._given is None else self._given.trace_id

    def generate_span_id(self) -> int:
        return super().generate_span_id() if self._given is None else self._given.span_id

    def is_trace_id_random(self) -> bool:
        return False


class _Telling(SpanExporter):
    """Says in the log when a collector stops taking spans, and when it takes them again. Runs in the thread
    that exports."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.info("traces.collector_back", spans_lost=self._lost)
            self._lost = 0
        else:
            if not self._lost:
                log.warning("traces.collector_away", advice="Spans are lost until it takes them again.")
            self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _named(attributes: dict[str, str]) -> dict[str, str]:
    return {f"moorage.{name}": value for name, value in attributes.items()}
