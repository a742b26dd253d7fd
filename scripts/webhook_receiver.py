#!/usr/bin/env python3
"""Receives Moorage's webhooks, verifies each, and prints it as one line of JSON.

    MOORAGE_WEBHOOK_SECRET=whsec_… python scripts/webhook_receiver.py --port 9000

The first line is `{"url": …}`. Verification is the `standardwebhooks` package's, as any receiver would do it;
a message that does not verify is answered with 401 and printed as such. The secret is what
GET /v1/webhook-secret answers. It goes on until SIGTERM or Ctrl-C, or until --count messages have verified.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn  # a line is JSON

from standardwebhooks import Webhook, WebhookVerificationError
from standardwebhooks.webhooks import EmptyWebhookSecretError

LONGEST_BODY = 1 << 20
EXIT_CODES = (
    "exit codes: 0 ended by SIGTERM or --count, 1 cannot listen there, 2 wrong usage, 130 interrupted"
)


def tell(line: dict[str, Any]) -> None:
    """One write, so that lines of several threads do not mix."""
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


class Receiver(ThreadingHTTPServer):
    """Ends by itself after `count` messages that verified; never where that is None."""

    def __init__(self, address: tuple[str, int], webhook: Webhook, count: int | None) -> None:
        super().__init__(address, Handler)
        self.webhook = webhook
        self._left = count
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/webhook"

    def verified(self) -> None:
        with self._lock:
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    threading.Thread(target=self.shutdown).start()  # it waits for the loop to end


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds without a byte
    server: Receiver

    def do_POST(self) -> None:
        text = self.headers.get("content-length", "")
        length = int(text) if text.isdecimal() else LONGEST_BODY + 1
        if length > LONGEST_BODY:
            self._answer(413 if text.isdecimal() else 411)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            message = self.server.webhook.verify(body, headers)
        except (WebhookVerificationError, ValueError) as error:  # the latter of what is no text or no base64
            self._answer(401)
            tell({"verified": False, "why": str(error)})
            return
        self._answer(204)
        tell({"verified": True, "id": headers["webhook-id"], "message": message})
        self.server.verified()

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Lines on standard output are the messages and nothing else."""


def webhook_of(secret: str | None) -> Webhook:
    """Exits with 2 where there is none that can be one."""
    if not secret:
        wrong("Set MOORAGE_WEBHOOK_SECRET to what GET /v1/webhook-secret answers.")
    try:
        return Webhook(secret)
    except (EmptyWebhookSecretError, ValueError):
        wrong("MOORAGE_WEBHOOK_SECRET is no webhook secret: whsec_ and base64.")


def wrong(words: str, code: int = 2) -> NoReturn:
    print(words, file=sys.stderr, flush=True)
    sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    parser.add_argument("--port", type=int, default=0, help="0, the default: any free one")
    parser.add_argument("--count", type=int, metavar="N", help="end after so many messages")
    arguments = parser.parse_args()
    if arguments.count is not None and arguments.count < 1:
        parser.error("--count must be at least 1")
    webhook = webhook_of(os.environ.get("MOORAGE_WEBHOOK_SECRET"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server = Receiver((arguments.host, arguments.port), webhook, arguments.count)
    except (OSError, OverflowError) as error:
        wrong(f"Cannot listen on {arguments.host}, port {arguments.port}: {error}.", code=1)
    with server:
        tell({"url": server.url})
        server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
