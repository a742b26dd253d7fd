"""Tells the service how the model is coming along: signed, in the background, the newest state only.

A report that cannot be delivered is no reason to serve later or worse. So one thread sends, a newer state
replaces one that waits, and after a few tries it is let go.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Self

log = logging.getLogger(__name__)

EVERY_SECONDS = 2.0  # between reports of the same stage
TRIES = 5
FIRST_PAUSE = 0.5  # seconds; doubled after each try
ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """Where to report, as whom, and the secret (`whsec_…`) to sign with."""

    url: str
    endpoint: str
    worker: str
    secret: str = field(repr=False)

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self | None:
        """None when nobody asked for reports."""
        url, secret = environ.get("MOORAGE_CALLBACK_URL"), environ.get("MOORAGE_CALLBACK_SECRET")
        endpoint = environ.get("MOORAGE_ENDPOINT_NAME")
        if not url or not secret or not endpoint:
            return None
        return cls(url, endpoint, environ.get("RUNPOD_POD_ID") or socket.gethostname(), secret)


@dataclass(frozen=True, slots=True)
class State:
    state: str  # "loading", "ready" or "failed"
    stage: str | None = None
    percent: float | None = None
    load_seconds: float | None = None
    from_cache: bool | None = None
    cause: str | None = None


class Reporter:
    """`tell` may be called from any thread and returns at once."""

    def __init__(self, settings: ReportSettings | None) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._waiting: State | None = None
        self._sending = False
        self._last: State | None = None
        self._last_at = 0.0
        if settings is not None:
            threading.Thread(target=self._run, args=(settings,), name="reports", daemon=True).start()

    def tell(self, state: State) -> None:
        if self._settings is None:
            return
        with self._changed:
            same_stage = self._last is not None and (self._last.state, self._last.stage) == (
                state.state,
                state.stage,
            )
            if same_stage and time.monotonic() - self._last_at < EVERY_SECONDS:
                return
            self._last, self._last_at = state, time.monotonic()
            self._waiting = state
            self._changed.notify_all()

    def settle(self, seconds: float) -> None:
        """Waits until what was told has been sent or let go, at most so long. Before the process ends."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._waiting is not None or self._sending:
                left = end - time.monotonic()
                if left <= 0 or self._settings is None:
                    return
                self._changed.wait(left)

    def _run(self, settings: ReportSettings) -> None:
        while True:
            with self._changed:
                while self._waiting is None:
                    self._changed.wait()
                state, self._waiting, self._sending = self._waiting, None, True
            try:
                self._deliver(settings, state)
            except Exception:  # a report must never be more than a report
                log.exception("unexpected error while reporting")
            with self._changed:
                self._sending = False
                self._changed.notify_all()

    def _deliver(self, settings: ReportSettings, state: State) -> None:
        pause = FIRST_PAUSE
        for attempt in range(TRIES):
            outcome = _send(settings, state)
            if outcome is None:
                return
            with self._changed:
                if self._waiting is not None:
                    return  # newer news goes instead
            if attempt + 1 < TRIES:
                time.sleep(pause)
                pause *= 2
        log.warning("the service was not told %s: %s", state.state, outcome)


def _send(settings: ReportSettings, state: State) -> str | None:
    """One try; None when it is over, taken or refused for good, else what went wrong."""
    import httpx2
    from standardwebhooks import Webhook

    body = json.dumps({"endpoint": settings.endpoint, "worker": settings.worker, **asdict(state)})
    message, now = f"msg_{uuid.uuid4().hex}", datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(settings.secret).sign(message, now, body),
    }
    try:
        answer = httpx2.post(settings.url, content=body, headers=headers, timeout=ANSWER_SECONDS)
    except httpx2.HTTPError as error:
        return type(error).__name__
    if answer.status_code < 300:
        return None
    if answer.status_code < 500:
        log.warning("the service refused a report with %d", answer.status_code)
        return None
    return f"it answered {answer.status_code}"
