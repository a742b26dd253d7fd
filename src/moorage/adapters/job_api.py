"""A provider's own job API, for deployments whose replicas take jobs: asked, and its answer handed on.

The provider's word on a job is passed on as it is. What is between us and the provider (a key that it
refuses, no connection, an answer that is no JSON) is a problem of ours, told as such.
"""

from __future__ import annotations

import json

from aiohttp import ClientConnectorError, ClientError, ClientResponse, ClientTimeout, ConnectionTimeoutError
from yarl import URL

from moorage.connections import Connections
from moorage.errors import BadGateway, Problem, Unavailable
from moorage.ports.outside import OutgoingAnswer, Resolve
from moorage.upstream_auth import UpstreamAuth

CONNECT_SECONDS = 5.0
LARGEST_ANSWER = 64 * 1024 * 1024  # bytes


class JobApiTimeout(Problem):
    status, code, title = 504, "provider_timeout", "The provider did not answer in time"


class HttpJobApi:
    """A `services.jobs.JobApi`. `resolve` is the guard for hosts that users named."""

    def __init__(self, resolve: Resolve | None = None) -> None:
        self._connections = Connections(CONNECT_SECONDS, resolve)

    async def call(
        self, method: str, url: str, auth: UpstreamAuth, body: bytes | None, timeout: float
    ) -> OutgoingAnswer:
        """`timeout` in seconds bounds the wait for each part of the answer. Raises a Problem."""
        headers = {"user-agent": "moorage", **auth.headers()}
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            async with self._connections.session(guarded=auth.guarded).request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                ssl=auth.tls or True,
                timeout=ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=timeout),
            ) as response:
                return _judged(await _read(response))
        except (ClientConnectorError, ConnectionTimeoutError) as error:
            raise Unavailable(
                "The provider cannot be connected to.", code="provider_unreachable", retry_after=5.0
            ) from error
        except TimeoutError as error:
            raise JobApiTimeout(f"The provider did not answer within {timeout:g} seconds.") from error
        except ClientError as error:
            raise BadGateway(
                "The provider closed the connection before its answer was complete.",
                code="provider_failed",
                advice="The request may have been carried out.",
            ) from error

    async def aclose(self) -> None:
        await self._connections.aclose()


async def _read(response: ClientResponse) -> OutgoingAnswer:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise BadGateway("The provider's answer is too large.", code="provider_failed")
    headers = {name.lower(): value for name, value in response.headers.items()}
    return OutgoingAnswer(response.status, headers, bytes(body))


def _judged(answer: OutgoingAnswer) -> OutgoingAnswer:
    if answer.status in (401, 403):
        raise BadGateway(
            "The provider refused the account that the deployment was made with.",
            code="provider_key_refused",
            advice="Store a key that the provider accepts, and deploy again.",
        )
    try:
        told = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise BadGateway(
            f"The provider answered {answer.status}, and no JSON.", code="provider_failed"
        ) from error
    # What lies before a job API in a cluster answers by itself where it finds nobody behind it.
    if isinstance(told, dict) and (told.get("kind"), told.get("apiVersion")) == ("Status", "v1"):
        raise Unavailable(
            "The queue's job API does not answer now.",
            code="provider_unreachable",
            advice="Ask again; the jobs in the queue are not lost.",
            retry_after=2.0,
        )
    return answer
