"""Receives the reports of workers: verifies each as Standard Webhooks has it, and answers as it is told."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

SECRET = "whsec_c2VjcmV0LW9mLXRoaXMtZW5kcG9pbnQtYWxvbmU="
NAME = "mrg-harbour"
WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try: the id of its message, its report, and what it was answered."""

    message: str
    report: dict[str, Any]  # JSON
    status: int


class Receiver:
    """`status_for` gives the answer to a report; `answering` cleared, every answer is held back."""

    def __init__(self) -> None:
        self.status_for: Callable[[dict[str, Any]], int] = lambda _report: 204
        self.answering = threading.Event()
        self.answering.set()
        self.deliveries: list[Delivery] = []
        self.forged: list[str] = []
        self.url = ""
        self._changed = threading.Condition()

    @contextmanager
    def serving(self) -> Iterator[Receiver]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"receiver": self}))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}/v1/workers/{NAME}/state"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.answering.set()
            server.shutdown()
            server.server_close()
            thread.join()
        assert self.forged == []

    def environment(self) -> dict[str, str]:
        return {
            "MOORAGE_ENDPOINT_NAME": NAME,
            "MOORAGE_CALLBACK_URL": self.url,
            "MOORAGE_CALLBACK_SECRET": SECRET,
        }

    def until(self, holds: Callable[[Delivery], bool]) -> Delivery:
        """The first delivery of which it holds, waited for."""

        def found() -> Delivery | None:
            return next((delivery for delivery in self.deliveries if holds(delivery)), None)

        with self._changed:
            delivery = self._changed.wait_for(found, WAIT_SECONDS)
        assert delivery is not None, self.deliveries
        return delivery

    def reports(self, state: str) -> list[dict[str, Any]]:
        return [one.report for one in list(self.deliveries) if one.report["state"] == state]

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        try:
            report = Webhook(SECRET).verify(body, headers)
        except Exception as error:  # whatever is wrong with it, no report of this endpoint's
            self.forged.append(repr(error))
            return 401
        status = self.status_for(report)
        with self._changed:
            self.deliveries.append(Delivery(headers["webhook-id"], json.loads(body), status))
            self._changed.notify_all()
        self.answering.wait()
        return status


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = self.receiver.take(body, headers)
        with contextlib.suppress(ConnectionError):  # the worker did not wait for an answer that was held back
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Quiet: what came is in `Receiver.deliveries`."""
