"""The one way to RunPod over HTTP: timeouts, pace, and every failure as a `ProviderError`.

The key goes into one header and nowhere else: answers are cleaned of it before anybody reads them, and the
exceptions of the HTTP library, which hold the request, stay in here.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx
from pydantic import ValidationError

from moorage.errors import Retry
from moorage_runpod.failures import Reply, Unanswered, exhausted_for, failure, wait_asked
from moorage_runpod.settings import own_version
from moorage_runpod.wire import Wire

CALL_SECONDS = 20.0  # for a whole answer
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 60.0  # of a stream, before it is opened again
PACES_KEPT = 1000

W = TypeVar("W", bound=Wire)

# The request did not leave: nothing can have happened.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


def parse(kind: type[W], reply: Reply, doing: str) -> W:
    """Raises Unanswered for garbage: a proxy may have answered in RunPod's place."""
    try:
        return kind.model_validate_json(reply.body)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, e["loc"])) or e["type"] for e in error.errors()[:3])
    raise Unanswered(f"RunPod did not answer in the form of its API when asked to {doing} ({places})")


class Transport:
    def __init__(self) -> None:
        self._http = httpx.AsyncClient(
            # Without a name of its own a client is stopped before it reaches RunPod.
            headers={"User-Agent": f"moorage-runpod/{own_version()} (+https://github.com/moorage/moorage)"},
            timeout=httpx.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=200, max_keepalive_connections=50),
        )
        self._closed_until: dict[str, float] = {}  # monotonic, by key hash and host

    async def call(
        self,
        key: str,
        method: str,
        url: str,
        doing: str,
        *,
        json: object = None,
        params: Mapping[str, str] | None = None,
        seconds: float = CALL_SECONDS,
    ) -> Reply:
        """The answer with status 2xx. Raises the ProviderError of any other; Unanswered where the request may
        have been carried out though no answer tells."""
        reply = await self.ask(key, method, url, doing, json=json, params=params, seconds=seconds)
        if not 200 <= reply.status < 300:
            raise failure(reply, doing)
        return reply

    async def ask(
        self,
        key: str,
        method: str,
        url: str,
        doing: str,
        *,
        json: object = None,
        params: Mapping[str, str] | None = None,
        seconds: float = CALL_SECONDS,
    ) -> Reply:
        """The answer whatever its status. Raises Retry when there is none."""
        pace = self._pace(key, url)
        self._keep_pace(pace)
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        try:
            async with asyncio.timeout(seconds):
                response = await self._http.request(method, url, json=json, params=params, headers=headers)
        except TimeoutError:
            raise Unanswered(f"RunPod did not answer within {seconds:g} s when asked to {doing}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _lost(error, doing) from None
        reply = _reply(response, response.content, key)
        self._note_pace(pace, reply)
        return reply

    @asynccontextmanager
    async def stream(
        self, key: str, url: str, doing: str, *, params: Mapping[str, str], last_event: str | None = None
    ) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of an answer without end. Raises as `call` does, also while it is read."""
        pace = self._pace(key, url)
        self._keep_pace(pace)
        headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
        if last_event is not None:
            headers["Last-Event-ID"] = last_event
        patience = httpx.Timeout(CALL_SECONDS, read=SILENCE_SECONDS, connect=CONNECT_SECONDS)
        try:
            async with self._http.stream(
                "GET", url, params=params, headers=headers, timeout=patience
            ) as response:
                if not response.is_success:
                    reply = _reply(response, await response.aread(), key)
                    self._note_pace(pace, reply)
                    raise failure(reply, doing)
                yield response.aiter_lines()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise _lost(error, doing) from None

    async def aclose(self) -> None:
        await self._http.aclose()

    @staticmethod
    def _pace(key: str, url: str) -> str:
        return f"{hashlib.sha256(key.encode()).hexdigest()} {httpx.URL(url).host}"

    def _keep_pace(self, pace: str) -> None:
        """Raises Retry while a window of the account's rate limit is used up: asking would be refused."""
        left = self._closed_until.get(pace, 0.0) - time.monotonic()
        if left > 0:
            raise Retry(f"RunPod's rate limit for this account is used up for {left:.0f} s", after=left)
        self._closed_until.pop(pace, None)

    def _note_pace(self, pace: str, reply: Reply) -> None:
        wait = wait_asked(reply.headers) if reply.status == 429 else exhausted_for(reply.headers)
        if wait:
            now = time.monotonic()
            if len(self._closed_until) >= PACES_KEPT:
                self._closed_until = {p: until for p, until in self._closed_until.items() if until > now}
            self._closed_until[pace] = now + wait


def _reply(response: httpx.Response, body: bytes, key: str) -> Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, body.replace(key.encode(), b"[key]"))


def _lost(error: Exception, doing: str) -> Retry:
    what = f"RunPod could not be reached to {doing} ({type(error).__name__})"
    return Retry(what) if isinstance(error, _NOT_SENT) else Unanswered(what)
