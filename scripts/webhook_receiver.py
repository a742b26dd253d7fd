"""Receives Moorage's webhooks, verifies each, and prints it as one line of JSON.

    MOORAGE_WEBHOOK_SECRET=whsec_… python scripts/webhook_receiver.py --port 9000

The first line is `{"url": …}`. Verification is the `standardwebhooks` package's, as any receiver would do it;
a message that does not verify is answered with 401 and printed as such.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

LONGEST_BODY = 1 << 20


def tell(line: dict[str, Any]) -> None:
    """One write, so that lines of several threads do not mix."""
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def handler(webhook: Webhook) -> type[BaseHTTPRequestHandler]:
    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            if length > LONGEST_BODY:
                self._answer(413)
                self.close_connection = True
                return
            body = self.rfile.read(length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                message = webhook.verify(body, headers)
            except WebhookVerificationError as error:
                tell({"verified": False, "why": str(error)})
                self._answer(401)
                return
            self._answer(204)
            tell({"verified": True, "id": headers["webhook-id"], "message": message})

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Lines on standard output are the messages and nothing else."""

    return Receiver


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    arguments = parser.parse_args()
    secret = os.environ.get("MOORAGE_WEBHOOK_SECRET")
    if not secret:
        sys.exit("Set MOORAGE_WEBHOOK_SECRET to what GET /v1/webhook-secret answers.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ThreadingHTTPServer((arguments.host, arguments.port), handler(Webhook(secret))) as server:
        tell({"url": f"http://{arguments.host}:{server.server_address[1]}/webhook"})
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
