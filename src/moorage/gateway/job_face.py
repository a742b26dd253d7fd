"""A request to a model whose replicas take jobs: it becomes a job, and the job's result the answer.

The job API has no connection that lasts as long as the job, so the answer is waited for in two ways: the
first call holds for some seconds, which is enough for most; after that the job's status is asked for, less
and less often. A caller who leaves takes the job along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any  # a job's result is whatever JSON the model made
from urllib.parse import quote

import orjson
from aiohttp import ClientResponse, ClientSession
from yarl import URL

from moorage.errors import BadGateway, Malformed, Problem, TooLarge, Unavailable
from moorage.gateway.problems import GatewayTimeout
from moorage.upstream_auth import UpstreamAuth

HELD_MILLISECONDS = 8_000  # by the first call
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 2.0  # seconds between asking for the status
LARGEST_ANSWER = 64 * 1024 * 1024  # bytes
LARGEST_INPUT = 20 * 1000 * 1000  # bytes that a synchronous job may bring
_WAITING = frozenset({"IN_QUEUE", "IN_PROGRESS", "RUNNING"})
_LONGEST_CAUSE = 2000


class ModelProblem(Problem):
    """The model's own refusal, as it told it."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        detail = str(members.get("detail") or members.get("title") or "The model refused the request.")
        super().__init__(detail[:_LONGEST_CAUSE], code=str(members.get("code") or "model_error"))
        self.status = int(members["status"])
        self.title = str(members.get("title") or "The model refused the request")
        errors = members.get("errors")
        self.told = errors if isinstance(errors, list) else []

    def members(self) -> dict[str, object]:
        return {**super().members(), "errors": self.told}


@dataclass(frozen=True, slots=True)
class Pending:
    job_id: str


def input_of(body: bytes) -> bytes:
    """The job that carries `body` to the model. Raises Malformed for what is no JSON, or TooLarge."""
    if len(body) > LARGEST_INPUT:
        raise TooLarge.at("body", "max_bytes", f"A job's input has at most {LARGEST_INPUT} bytes.")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = f"The body is not JSON: {error}."
        raise Malformed.at("body", "json", message, code="invalid_json") from error
    return orjson.dumps({"input": value})


def result_of(job: Mapping[str, Any]) -> bytes | Pending:
    """The output of a job that is done, as JSON. Raises a Problem for one that failed."""
    status = job.get("status")
    if status == "COMPLETED":
        return orjson.dumps(job.get("output"))
    if status in _WAITING:
        return Pending(str(job.get("id", "")))
    if status == "FAILED":
        raise _failure(job.get("error"))
    if status == "TIMED_OUT":
        raise GatewayTimeout("The job took longer than it may.", code="job_timed_out")
    raise BadGateway(f"The job ended as {str(status)[:40]}.", code="job_not_completed")


def _failure(error: object) -> Problem:
    """A worker of ours tells a problem document; any other tells what it likes."""
    told: object = error
    if isinstance(error, str):
        try:
            told = orjson.loads(error)
        except orjson.JSONDecodeError:
            told = error
    if isinstance(told, dict):
        status = told.get("status")
        if isinstance(status, int) and 400 <= status <= 599:
            return ModelProblem(told)
        told = told.get("error_message") or told
    cause = str(told)[:_LONGEST_CAUSE] if told else "it gave no cause"
    return BadGateway(f"The job failed: {cause}", code="job_failed", advice="See the deployment's logs.")


class JobCall:
    """One job from its start to its result. `base` is the URL that `/runsync` is added to."""

    def __init__(self, session: ClientSession, base: str, auth: UpstreamAuth) -> None:
        self._session = session
        self._base = base.rstrip("/")
        self._tls = auth.tls or True  # what aiohttp calls the default
        self._headers = {"content-type": "application/json", "user-agent": "moorage", **auth.headers()}

    async def run(self, body: bytes) -> bytes:
        """The output as JSON. Raises a Problem, or aiohttp's ClientError. Cancelled, it cancels the job."""
        url = URL(f"{self._base}/runsync?wait={HELD_MILLISECONDS}", encoded=True)
        async with self._session.post(
            url, data=body, headers=self._headers, allow_redirects=False, ssl=self._tls
        ) as response:
            found = result_of(await _job(response))
        pause = FIRST_PAUSE
        while isinstance(found, Pending):
            try:
                await asyncio.sleep(pause)
                found = await self._look(found.job_id) or found
            except asyncio.CancelledError:
                await asyncio.shield(self._cancel(found))
                raise
            pause = min(pause * 1.5, LONGEST_PAUSE)
        return found

    async def _look(self, job_id: str) -> bytes | Pending | None:
        """None when the answer is no news: too many questions, or a passing failure."""
        url = URL(f"{self._base}/status/{quote(job_id, safe='')}", encoded=True)
        async with self._session.get(
            url, headers=self._headers, allow_redirects=False, ssl=self._tls
        ) as response:
            if response.status == 429 or response.status >= 500:
                return None
            return result_of(await _job(response))

    async def _cancel(self, pending: bytes | Pending) -> None:
        if not isinstance(pending, Pending):
            return
        url = URL(f"{self._base}/cancel/{quote(pending.job_id, safe='')}", encoded=True)
        async with (
            asyncio.timeout(5.0),
            self._session.post(url, headers=self._headers, allow_redirects=False, ssl=self._tls),
        ):
            pass


async def _bounded(response: ClientResponse) -> bytes:
    """A host that a tenant named may answer without end."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise BadGateway("The provider's answer is too large.", code="provider_failed")
    return bytes(body)


async def _job(response: ClientResponse) -> Mapping[str, Any]:
    if response.status in (401, 403):
        raise BadGateway(
            "The provider refused the account that the deployment was made with.",
            code="provider_key_refused",
            advice="Store a key that the provider accepts, and deploy again.",
        )
    if response.status == 404:
        raise Unavailable("The endpoint or the job is gone at the provider.", code="endpoint_gone")
    if response.status == 429:
        after = response.headers.get("retry-after", "")
        raise Unavailable(
            "The provider asks to slow down.",
            code="provider_rate_limit",
            retry_after=float(after) if after.isdecimal() else 5.0,
        )
    if response.status == 503:
        raise Unavailable("Nothing takes jobs at the provider now.", code="provider_unavailable")
    if response.status >= 400:
        text = (await response.content.read(1200)).decode(errors="replace")[:300]
        raise BadGateway(f"The provider answered {response.status}: {text}", code="provider_failed")
    if response.status >= 300:
        raise BadGateway(f"The provider answered {response.status}, a redirect.", code="provider_failed")
    try:
        value = orjson.loads(await _bounded(response))
    except orjson.JSONDecodeError as error:
        raise BadGateway("The provider's answer is not JSON.", code="provider_failed") from error
    if not isinstance(value, dict):
        raise BadGateway("The provider's answer is no job.", code="provider_failed")
    return value
