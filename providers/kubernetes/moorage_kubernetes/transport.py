"""The one way to a cluster over HTTP, in the form in which kubernetes-asyncio wants it: guard, TLS, time and
size are kept here, and every failure leaves as a `ProviderError`.

The library's own transport opens its session at once, reads proxies from the environment, follows redirects
and reads any answer to its end. So only its typed APIs are used, on this.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any  # the library's interface is not typed
from urllib.parse import urlencode

import aiohttp
from kubernetes_asyncio.client.rest import RESTClientObject, RESTResponse

from moorage.errors import ProviderError, Rejected, Retry, Unauthorized
from moorage.ports.outside import Resolve
from moorage_kubernetes.connecting import NotPermitted, open_session, tls_context
from moorage_kubernetes.failures import IMPORT_ADVICE, failure

CONNECT_SECONDS = 10.0
MOST_BYTES = 256 * 1024**2  # of a whole answer: all pods of a very large cluster
MOST_ERROR_BYTES = 64 * 1024
ALLOW_ADVICE = "The operator of this service can allow the address with MOORAGE_OUTBOUND_ALLOW."
TRUST_ADVICE = "Give the certificate authority of the cluster's API server, as its kubeconfig has it."


class Transport(RESTClientObject):
    """`values` are a credential's; `seconds` is for a whole answer, where a call does not say otherwise."""

    def __init__(self, values: Mapping[str, str], resolve: Resolve | None, seconds: float) -> None:
        # Not the library's constructor: it would open a session that knows no guard.
        self._values = values
        self._resolve = resolve
        self._seconds = seconds
        self._opening = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self.closed = False

    async def close(self) -> None:
        self.closed = True
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        url: str,
        query_params: Any = None,
        headers: dict[str, str] | None = None,
        body: Any = None,
        post_params: Any = None,
        _preload_content: bool = True,
        _request_timeout: Any = None,
    ) -> Any:
        """A whole answer as the library's RESTResponse; with `_preload_content` False an answer that is still
        to be read, which the caller releases. Both have a status of success. `_request_timeout` is in
        seconds, or a ClientTimeout."""
        async with self._troubles():
            session = await self._opened()
            response = await session.request(
                method,
                f"{url}?{urlencode(query_params)}" if query_params else url,
                headers={"Content-Type": "application/json", **(headers or {})},
                data=None if body is None else json.dumps(body),
                timeout=self._timeout(_request_timeout),
                allow_redirects=False,
            )
            try:
                await self._refuse_failure(response)
                if _preload_content:
                    return RESTResponse(response, await read_bounded(response, MOST_BYTES))
            except BaseException:
                response.close()
                raise
            return response

    @asynccontextmanager
    async def _troubles(self) -> AsyncIterator[None]:
        try:
            yield
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise trouble(error) from None

    async def _opened(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self.closed:
                raise Retry("The connection to the cluster is being closed")
            if self._session is None:
                try:
                    context = await asyncio.to_thread(tls_context, self._values)
                except (ValueError, OSError):
                    detail = "The certificates of the cluster's credential cannot be used"
                    raise Unauthorized(detail, advice=IMPORT_ADVICE) from None
                self._session = open_session(self._resolve, context, CONNECT_SECONDS)
            return self._session

    def _timeout(self, asked: aiohttp.ClientTimeout | float | None) -> aiohttp.ClientTimeout:
        if isinstance(asked, aiohttp.ClientTimeout):
            return asked
        return aiohttp.ClientTimeout(total=asked or self._seconds, sock_connect=CONNECT_SECONDS)

    async def _refuse_failure(self, response: aiohttp.ClientResponse) -> None:
        if 200 <= response.status < 300:
            return
        body = await response.content.read(MOST_ERROR_BYTES)
        token = self._values.get("token", "").encode()
        clean = body.replace(token, b"[token]") if token else body
        raise failure(response.status, clean, response.headers)


async def read_bounded(response: aiohttp.ClientResponse, most: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > most:
            raise Rejected(f"The cluster's answer is larger than {most} bytes")
    return b"".join(chunks)


def trouble(error: Exception) -> ProviderError:
    """Of what aiohttp raises; its own words may hold addresses of this network, and are not told."""
    refused = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(refused, NotPermitted):
        return Rejected(
            f"The cluster's server may not be connected to: {refused.detail}", advice=ALLOW_ADVICE
        )
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", None) or "it does not verify"
        return Rejected(
            f"The certificate of the cluster's server is not trusted: {reason}", advice=TRUST_ADVICE
        )
    if _certificate_refused(error):
        return Unauthorized("The cluster refuses the client certificate", advice=IMPORT_ADVICE)
    if isinstance(error, TimeoutError):
        return Retry("The cluster did not answer in time", after=2.0)
    return Retry(f"The cluster cannot be reached ({type(error).__name__})", after=2.0)


def _certificate_refused(error: Exception) -> bool:
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    told = inner if isinstance(inner, ssl.SSLError) else error.__cause__
    return isinstance(told, ssl.SSLError) and "ALERT" in (told.reason or "") and "CERT" in (told.reason or "")
