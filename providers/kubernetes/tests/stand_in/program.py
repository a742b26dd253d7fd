"""A container for tests: tells its environment, exits when asked, and says when it was ended well."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Face(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        print(f"GET {self.path}", flush=True)
        body = json.dumps(dict(os.environ)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.send_response(204)
        self.end_headers()
        self.wfile.flush()
        threading.Timer(0.05, os._exit, (7,)).start()

    def log_message(self, *_: object) -> None:
        return


def _end(*_: object) -> None:
    if "TELL" in os.environ:
        Path(os.environ["TELL"]).write_text("ended well")
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "STUBBORN" in os.environ else _end)
    print("started", flush=True)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Face).serve_forever()
