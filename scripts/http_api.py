"""A JSON API over HTTP for the scripts beside it: one way to ask, one way to fail, one set of exit codes.

The scripts run wherever Python 3.11 and httpx are, so they share this file and import nothing of Moorage.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn  # documents are JSON of either API

import httpx

ANSWER_SECONDS = 60.0
SILENCE_SECONDS = 60.0  # of a stream; Moorage gives a sign of life four times as often
LONGEST_WAIT_SECONDS = 60.0  # that a server may ask for and be given
ATTEMPTS = 5
AWAY_SECONDS = 60.0  # a service that is restarted comes back within this
SHOWN_OF_A_FOREIGN_ANSWER = 200

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_REPEATABLE = ("GET", "DELETE", "PATCH")  # sent twice they do what they do once
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout)
_BROKEN = (httpx.RequestError, UnicodeError)  # the latter of a host that no name server could be asked for


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


EXIT_CODES = (
    "exit codes: 0 done, 1 failed, 2 wrong usage, 4 the key is not accepted or may not do this,\n"
    "5 not reached, 130 interrupted"
)


class Failed(Exception):
    """Ends a script with these words and this exit code. `status` is the answer's, where there was one."""

    def __init__(self, words: str, code: Exit = Exit.FAILED, status: int | None = None) -> None:
        super().__init__(words)
        self.code, self.status = code, status

    @property
    def was_refused(self) -> bool:
        """Whether the server said no: nothing was done. Else nobody knows."""
        return self.status is not None and 400 <= self.status < 500


@dataclass(frozen=True, slots=True)
class Event:
    type: str
    id: str | None
    data: Any


class HttpApi:
    """`with HttpApi(url, key, "smoke") as api:`; the key goes into one header, and into no message."""

    def __init__(self, base_url: str, key: str | None, script: str) -> None:
        """Raises Failed for what cannot be a URL or a key."""
        self._key = key or None
        self.base_url = base_url.rstrip("/")
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise Failed("The key has characters that no key has.", Exit.USAGE)
        try:
            url = httpx.URL(self.base_url)
        except httpx.InvalidURL as error:
            raise Failed(f"{base_url} is no URL: {error}.", Exit.USAGE) from None
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
            rule = "it must begin with http:// or https://, and have no user, query or fragment"
            raise Failed(f"This URL cannot be used: {rule}.", Exit.USAGE)
        self._http = httpx.Client(
            headers={"user-agent": f"moorage-{script}"}  # RunPod's front door stops clients without a name
            | ({"authorization": f"Bearer {key}"} if key else {}),
            timeout=ANSWER_SECONDS,
            trust_env=url.host not in _LOOPBACK,  # a proxy cannot reach this machine's loopback
        )
        self._was_reached = False

    def __enter__(self) -> HttpApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Any:
        """The JSON of the answer, None where it has no body. Asks again where that is safe. Raises Failed."""
        safe = method in _REPEATABLE or "idempotency-key" in (headers or {})
        for attempt in count(1):
            try:
                response = self._http.request(
                    method, self.base_url + path, json=body, params=params, headers=headers, timeout=seconds
                )
            except _BROKEN as error:
                failed = self._lost(error)
                wait = 0.2 * 2**attempt if self._again_after(error, safe=safe) else None
            else:
                self._was_reached = True
                if response.is_success:
                    return self._document(response)
                failed = self._refused(response)
                wait = _wait_asked(response, attempt, safe=safe)
            if wait is None or attempt == ATTEMPTS or wait > LONGEST_WAIT_SECONDS:
                raise failed from None
            say(f"{failed} Trying again in {wait:g} s.")
            time.sleep(wait)
        raise AssertionError  # count() has no end

    def events(self, path: str, *, seconds: float) -> Iterator[Event]:
        """Server-sent events, the old ones first, without an end; a lost connection is made again, and
        nothing is told twice. Raises Failed when `seconds` are over."""
        ends = time.monotonic() + seconds
        after: str | None = None
        away_since: float | None = None
        while True:
            try:
                with self._stream(path, after, ends) as response:
                    away_since = None
                    for event in _events(_until(ends, seconds, response.iter_lines())):
                        after = event.id or after
                        yield event
            except _BROKEN as error:
                _refuse_late(ends, seconds)
                away_since = away_since or time.monotonic()
                if not self._was_reached or time.monotonic() - away_since > AWAY_SECONDS:
                    raise self._lost(error) from None
            _refuse_late(ends, seconds)
            time.sleep(0.5)

    @contextlib.contextmanager
    def _stream(self, path: str, after: str | None, ends: float) -> Iterator[httpx.Response]:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": after} if after else {})
        silence = max(0.1, min(SILENCE_SECONDS, ends - time.monotonic()))
        timeout = httpx.Timeout(ANSWER_SECONDS, read=silence)
        with self._http.stream("GET", self.base_url + path, headers=headers, timeout=timeout) as response:
            self._was_reached = True
            if not response.is_success:
                response.read()
                raise self._refused(response)
            yield response

    def _again_after(self, error: Exception, *, safe: bool) -> bool:
        """A server that never answered is not waited for: the URL may be wrong."""
        return self._was_reached and (safe or isinstance(error, _NEVER_SENT))

    def _lost(self, error: Exception) -> Failed:
        cause = self._clean(str(error)) or type(error).__name__
        return Failed(f"{self.base_url} does not answer: {cause}.", Exit.UNREACHABLE)

    def _document(self, response: httpx.Response) -> Any:
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            return self._foreign(response)

    def _foreign(self, response: httpx.Response) -> NoReturn:
        raise Failed(
            f"{self.base_url} answered {response.status_code} with something that is no JSON; "
            "is the URL right? A proxy in between may have answered.",
            status=response.status_code,
        ) from None

    def _refused(self, response: httpx.Response) -> Failed:
        status = response.status_code
        told = self._clean(_problem(response))
        if status == 401:
            return Failed(f"{self.base_url} does not accept the key: {told}", Exit.REFUSED, status)
        if status == 403:
            return Failed(f"The key may not do this: {told}", Exit.REFUSED, status)
        return Failed(f"{response.request.method} {response.request.url.path}: {told}", status=status)

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _problem(response: httpx.Response) -> str:
    """A problem document (RFC 9457) in a line, with the fields at fault."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or "detail" not in document:
        text = " ".join(response.text.split())[:SHOWN_OF_A_FOREIGN_ANSWER]
        return f"status {response.status_code}, {text or 'nothing more'}"
    parts = [str(document["detail"]), str(document.get("advice") or "")]
    for error in document.get("errors") or ():
        named = isinstance(error, dict)
        told = f"({error.get('field')}: {error.get('rule')})" if named else f"({error})"
        parts.append(told)
    return " ".join(part for part in parts if part)


def _wait_asked(response: httpx.Response, attempt: int, *, safe: bool) -> float | None:
    """Seconds until the request may be sent again, None where it may not."""
    text = response.headers.get("retry-after", "")
    asked = float(text) if text.isdecimal() else None
    status = response.status_code
    if status == 429 or (status == 503 and asked is not None):
        return asked if asked is not None else float(2**attempt)
    return 0.2 * 2**attempt if safe and status in (502, 503, 504) else None


def _until(ends: float, seconds: float, lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        _refuse_late(ends, seconds)
        yield line


def _refuse_late(ends: float, seconds: float) -> None:
    if time.monotonic() > ends:
        raise Failed(f"It took longer than {seconds:g} s.")


def _events(lines: Iterable[str]) -> Iterator[Event]:
    data: list[str] = []
    kind, id_ = "message", None
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id":
            id_ = value
        elif not line and data:
            yield Event(kind, id_, json.loads("\n".join(data)))
            data, kind = [], "message"


def runpod_key(file: Path | None) -> str:
    """Of RUNPOD_API_KEY, or the first line of `file`: options are seen by every user of the machine."""
    try:
        text = os.environ.get("RUNPOD_API_KEY", "") if file is None else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise Failed(f"--key-file {file} cannot be read.", Exit.USAGE) from None
    key = text.strip().partition("\n")[0].strip()
    if not key:
        where = "Set RUNPOD_API_KEY, or give --key-file." if file is None else f"{file} is empty."
        raise Failed(f"There is no RunPod API key. {where}", Exit.USAGE)
    return key


def say(text: str) -> None:
    """Progress, for people: standard output is kept for results."""
    print(text, file=sys.stderr, flush=True)


def run(main: Callable[[], int]) -> NoReturn:
    """Ends the process with what `main` returns, or with the code of what stopped it. SIGTERM and SIGHUP are
    as Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    try:
        code = int(main())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do is short
        sys.stdout.flush()
    except (Failed, KeyboardInterrupt) as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for told in dict.fromkeys(str(e) or "Interrupted." for e in _chain(error)):
            say(told)
        code = error.code if isinstance(error, Failed) else Exit.INTERRUPTED
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """What stopped the script, the first cause first: a clean-up may have failed after it."""
    if error.__context__ is not None:
        yield from _chain(error.__context__)
    if isinstance(error, (Failed, KeyboardInterrupt)):
        yield error


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
