"""RunPod's routes by name, for one account: REST v2, and the job API under the URLs that an endpoint names.

v1 and GraphQL are being retired and are not used.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

from pydantic import ValidationError

from moorage.errors import Gone, Retry
from moorage_runpod.failures import Reply, failure
from moorage_runpod.transport import Transport, parse
from moorage_runpod.urls import request_url
from moorage_runpod.wire import (
    BillingRecord,
    BillingRecords,
    Endpoint,
    Endpoints,
    GpuType,
    GpuTypes,
    Health,
    Job,
    LogEvent,
    Worker,
    WorkerList,
)

CATALOG_SECONDS = 6.0
PING_SECONDS = 3.0  # a load balancer holds a request until a worker is there; a look does not


@dataclass(frozen=True, slots=True)
class Logged:
    """One line of a worker's log; `event` is where a later stream may begin."""

    line: LogEvent
    event: str | None


@dataclass(frozen=True, slots=True)
class AccountApi:
    """Calls made with one key. Errors are those of `Transport.call`."""

    transport: Transport
    base: str
    key: str = field(repr=False)

    async def endpoints(self) -> tuple[Endpoint, ...]:
        reply = await self._v2("GET", "serverless", "list the endpoints")
        return parse(Endpoints, reply, "list the endpoints").endpoints

    async def endpoint(self, id_: str) -> tuple[Endpoint, datetime]:
        """With the server's time."""
        reply = await self._v2("GET", f"serverless/{_part(id_)}", "look at the endpoint")
        return parse(Endpoint, reply, "look at the endpoint"), reply.date

    async def create(self, body: Mapping[str, object]) -> Endpoint:
        reply = await self._v2("POST", "serverless", "create the endpoint", body)
        return parse(Endpoint, reply, "create the endpoint")

    async def patch(self, id_: str, body: Mapping[str, object]) -> None:
        """Believed only where RunPod shows the endpoint: a page in its place would look like success."""
        reply = await self._v2("PATCH", f"serverless/{_part(id_)}", "change the endpoint", body)
        parse(Endpoint, reply, "change the endpoint")

    async def delete(self, id_: str) -> None:
        """What is not there is deleted."""
        try:
            await self._v2("DELETE", f"serverless/{_part(id_)}", "delete the endpoint")
        except Gone:
            return

    async def workers(self, id_: str) -> tuple[Worker, ...]:
        reply = await self._v2("GET", f"serverless/{_part(id_)}/workers", "list the workers")
        return parse(WorkerList, reply, "list the workers").workers

    async def gpu_types(self) -> tuple[GpuType, ...]:
        doing = "list the GPUs"
        params = {"include": "AVAILABILITY", "product": "SERVERLESS"}
        url = f"{self.base}/v2/catalog/gpus"
        reply = await self.transport.call(self.key, "GET", url, doing, params=params, seconds=CATALOG_SECONDS)
        return parse(GpuTypes, reply, doing).gpus

    async def bill(self, id_: str, since: datetime) -> tuple[tuple[BillingRecord, ...], datetime]:
        """By hours, with the server's time."""
        doing = "tell what was billed"
        start = since.strftime("%Y-%m-%dT%H:%M:%SZ")
        params = {"serverlessId": id_, "startTime": start, "bucketSize": "hour"}
        reply = await self.transport.call(
            self.key, "GET", f"{self.base}/v2/billing/serverless", doing, params=params
        )
        return parse(BillingRecords, reply, doing).records, reply.date

    @asynccontextmanager
    async def worker_log(
        self, id_: str, worker: str, *, tail: int, after: str | None = None
    ) -> AsyncIterator[AsyncIterator[Logged]]:
        """The last `tail` lines and then new ones, or those after the event `after`."""
        url = f"{self.base}/v2/serverless/{_part(id_)}/workers/{_part(worker)}/logs"
        async with self.transport.stream(
            self.key, url, "read the log", params={"tail": str(tail)}, last_event=after
        ) as lines:
            yield _events(lines)

    # -- job API ---------------------------------------------------------------------------------------------

    async def run(self, endpoint: Endpoint, body: Mapping[str, object]) -> Job:
        doing = "send a job"
        url = request_url(endpoint, "run", self.base)
        with _not_there_yet(endpoint):
            reply = await self.transport.call(self.key, "POST", url, doing, json=body)
        return parse(Job, reply, doing)

    async def job(self, endpoint: Endpoint, id_: str) -> Job:
        """Raises Gone for a job that nobody knows, or that is over for long."""
        doing = "look at a job"
        url = request_url(endpoint, "status", self.base).replace("{job_id}", _part(id_))
        return parse(Job, await self.transport.call(self.key, "GET", url, doing), doing)

    async def health(self, endpoint: Endpoint) -> Health:
        doing = "ask for the queue's health"
        url = request_url(endpoint, "health", self.base)
        with _not_there_yet(endpoint):
            reply = await self.transport.call(self.key, "GET", url, doing)
        return parse(Health, reply, doing)

    async def ping(self, endpoint: Endpoint) -> int | None:
        """The status that a worker answers with, or the load balancer in its place; None when none came in
        time. Raises Unauthorized and PermissionMissing."""
        doing = "ask the load balancer for its health"
        url = request_url(endpoint, "health", self.base)
        try:
            reply = await self.transport.ask(self.key, "GET", url, doing, seconds=PING_SECONDS)
        except Retry:
            return None
        if reply.status in (401, 403):
            raise failure(reply, doing)
        return reply.status

    # -- the rest --------------------------------------------------------------------------------------------

    async def _v2(
        self, method: str, path: str, doing: str, body: Mapping[str, object] | None = None
    ) -> Reply:
        return await self.transport.call(self.key, method, f"{self.base}/v2/{path}", doing, json=body)


@contextlib.contextmanager
def _not_there_yet(endpoint: Endpoint) -> Iterator[None]:
    """The job API may learn of an endpoint later than REST; its 404 is no proof that the endpoint is gone."""
    try:
        yield
    except Gone:
        raise Retry(f"RunPod's job API does not know {endpoint.name} (yet)") from None


def _part(text: str) -> str:
    return quote(text, safe="")


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[Logged]:
    """Server-sent events, as much of the format as this stream needs. A line of no log is left out."""
    event: str | None = None
    async for text in lines:
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            event = value
        elif name == "data":
            with contextlib.suppress(ValidationError):
                yield Logged(LogEvent.model_validate_json(value), event)
