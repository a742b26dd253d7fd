"""Moorage's side of the shared cache: lists files to workers that sign as they must (Standard Webhooks)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

SECRET = "whsec_c2VjcmV0LW9mLXRoaXMtZW5kcG9pbnQtYWxvbmU="

Files = Callable[[], list[dict[str, object]] | None]


class MoorageStandIn:
    """`files` is asked at each request, and answers None for a model that is not cached."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.status: int | None = None  # answered to everything when set
        self.asked = 0
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator[MoorageStandIn]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"moorage": self}))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}/v1/workers/mrg-x/cache"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    moorage: MoorageStandIn

    def do_GET(self) -> None:
        self.moorage.asked += 1
        status, body = self._answer()
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _answer(self) -> tuple[int, object]:
        if self.moorage.status is not None:
            return self.moorage.status, {"title": "told to"}
        try:
            Webhook(SECRET).verify(b"", dict(self.headers), json_parse=False)
        except WebhookVerificationError as error:
            return 401, {"title": str(error)}
        files = self.moorage.files()
        return (404, {"title": "not cached"}) if files is None else (200, {"files": files})

    def log_message(self, *_args: object) -> None:
        """Quiet: requests are counted."""
