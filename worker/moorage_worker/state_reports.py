"""Tells the service how the model is coming along: signed, in the background, the newest state only.

A report that cannot be delivered is no reason to serve later or worse. So one thread sends, a newer state
replaces one that waits, and after a few tries it is let go.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Self

from moorage_worker.cache.settings import endpoint_url
from moorage_worker.errors import SettingsError
from moorage_worker.pacing import Pace
from moorage_worker.redaction import without_secrets

log = logging.getLogger(__name__)

URL = "MOORAGE_CALLBACK_URL"
SECRET = "MOORAGE_CALLBACK_SECRET"  # noqa: S105 - the name of a variable
ENDPOINT = "MOORAGE_ENDPOINT_NAME"

EVERY_SECONDS = 2.0  # between reports of the same stage
ANSWER_SECONDS = 3.0
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between the tries of one report
LAST_SECONDS = 8.0  # that a report may hold up the end of the process: one try that hangs, and the next


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """Where to report, as whom, and the secret (`whsec_…`) to sign with."""

    url: str
    endpoint: str
    worker: str
    secret: str = field(repr=False)

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self | None:
        """None when nobody asked for reports. Raises SettingsError."""
        url = environ.get(URL, "").strip()
        if not url:
            return None
        endpoint, secret = _required(environ, ENDPOINT), _required(environ, SECRET)
        try:
            base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise SettingsError(SECRET, "must be whsec_ and base64, as Moorage gives it") from None
        if find_spec("standardwebhooks") is None:
            raise SettingsError(URL, "needs a package; run: pip install 'moorage-worker[runpod]'")
        worker = environ.get("RUNPOD_POD_ID") or socket.gethostname()
        return cls(endpoint_url(URL, url), endpoint, worker, secret)


def _required(environ: Mapping[str, str], variable: str) -> str:
    value = environ.get(variable, "").strip()
    if not value:
        raise SettingsError(variable, f"must be set when {URL} is")
    return value


@dataclass(frozen=True, slots=True)
class State:
    """The members of a report beside `endpoint` and `worker`; `percent` is of the stage, from 0 to 100."""

    state: str  # "loading", "ready" or "failed"
    stage: str | None = None
    percent: float | None = None
    load_seconds: float | None = None
    from_cache: bool | None = None
    cause: str | None = None


class Reporter:
    """`tell` may be called from any thread and returns at once. Without settings nothing is ever sent."""

    def __init__(self, settings: ReportSettings | None) -> None:
        self._settings = settings
        self._pace = Pace(EVERY_SECONDS)
        self._changed = threading.Condition()
        self._waiting: State | None = None
        self._sending = False
        self._thread: threading.Thread | None = None

    def tell(self, state: State) -> None:
        if self._settings is None:
            return
        with self._changed:
            if not self._pace.due((state.state, state.stage), time.monotonic()):
                return
            self._waiting = state
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(self._settings,), name="reports", daemon=True
                )
                self._thread.start()

    def settle(self, seconds: float) -> None:
        """Wait until what was told has been sent or let go, at most so long. Before the process ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None and not self._sending, seconds)

    def _run(self, settings: ReportSettings) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None)
                state, self._waiting, self._sending = self._waiting, None, True
            assert state is not None
            try:
                self._deliver(settings, state)
            except Exception:  # a report must never be more than a report
                log.exception("unexpected error while reporting %s", state.state)
            with self._changed:
                self._sending = False
                self._changed.notify_all()

    def _deliver(self, settings: ReportSettings, state: State) -> None:
        """Until it is taken, refused, outdated, or tried often enough."""
        message = f"msg_{uuid.uuid4().hex}"
        trouble = _send(settings, state, message)
        for pause in PAUSES:
            if trouble is None:
                return
            with self._changed:
                if self._changed.wait_for(lambda: self._waiting is not None, pause):
                    return
            trouble = _send(settings, state, message)
        if trouble is not None:
            log.warning("the service was not told that the model is %s: %s", state.state, trouble)


def report_text(settings: ReportSettings, state: State) -> str:
    """The JSON text of a report, without secrets whatever its cause quotes."""
    said = {"endpoint": settings.endpoint, "worker": settings.worker, **asdict(state)}
    if state.cause is not None:
        said["cause"] = without_secrets(state.cause)
    return json.dumps(said)


def _send(settings: ReportSettings, state: State, message: str) -> str | None:
    """One try; None when it is over, taken or refused for good, else what went wrong."""
    # Imported when first used: most workers report to nobody.
    import httpx2
    from standardwebhooks import Webhook

    body = report_text(settings, state)
    now = datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(settings.secret).sign(message, now, body),
    }
    try:
        answer = httpx2.post(settings.url, content=body, headers=headers, timeout=ANSWER_SECONDS)
    except httpx2.HTTPError as error:
        return type(error).__name__  # its text may hold the URL
    if answer.status_code < 300:
        return None
    if answer.status_code < 500:
        log.warning("the service refused a report with %d", answer.status_code)
        return None
    return f"it answered {answer.status_code}"
