"""A provider's own job API, for deployments whose replicas take jobs: asked, and its answer handed on.

The provider's word on a job is passed on as it is. What is between us and the provider (a key that it
refuses, no connection, an answer that is no JSON) is a problem of ours, told as such.
"""

from __future__ import annotations

import json

import httpx

from moorage.errors import BadGateway, Problem, Unavailable
from moorage.ports import OutgoingAnswer

CONNECT_SECONDS = 5.0
LARGEST_ANSWER = 64 * 1024 * 1024  # bytes


class JobApiTimeout(Problem):
    status, code, title = 504, "provider_timeout", "The provider did not answer in time"


class HttpJobApi:
    """A `services.jobs.JobApi`."""

    def __init__(self) -> None:
        self._http = httpx.AsyncClient(
            trust_env=False, follow_redirects=False, headers={"user-agent": "moorage"}
        )

    async def call(
        self, method: str, url: str, bearer: str | None, body: bytes | None, timeout: float
    ) -> OutgoingAnswer:
        """`timeout` in seconds bounds the wait for each part of the answer. Raises a Problem."""
        headers = {} if body is None else {"content-type": "application/json"}
        if bearer is not None:
            headers["authorization"] = f"Bearer {bearer}"
        request = self._http.build_request(
            method,
            url,
            headers=headers,
            content=body,
            timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
        )
        try:
            answer = await self._send(request)
        except httpx.ConnectError as error:
            raise Unavailable(
                "The provider cannot be connected to.", code="provider_unreachable", retry_after=5.0
            ) from error
        except httpx.TimeoutException as error:
            raise JobApiTimeout(f"The provider did not answer within {timeout:g} seconds.") from error
        except httpx.HTTPError as error:
            raise BadGateway(
                "The provider closed the connection before its answer was complete.",
                code="provider_failed",
                advice="The request may have been carried out.",
            ) from error
        return _judged(answer)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _send(self, request: httpx.Request) -> OutgoingAnswer:
        response = await self._http.send(request, stream=True)
        try:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise BadGateway("The provider's answer is too large.", code="provider_failed")
        finally:
            await response.aclose()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return OutgoingAnswer(response.status_code, headers, bytes(body))


def _judged(answer: OutgoingAnswer) -> OutgoingAnswer:
    if answer.status in (401, 403):
        raise BadGateway(
            "The provider refused the account that the deployment was made with.",
            code="provider_key_refused",
            advice="Store a key that the provider accepts, and deploy again.",
        )
    try:
        json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise BadGateway(
            f"The provider answered {answer.status}, and no JSON.", code="provider_failed"
        ) from error
    return answer
