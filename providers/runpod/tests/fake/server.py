"""A load-balanced worker that loads at first, then tells what it was sent. Run as a process by tests."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Face(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        Face.asked += 1
        self.send_response(204 if Face.asked < 3 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_PUT(self) -> None:
        size = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        told = {"path": self.path, "method": "PUT", "bytes": size, "key": self.headers.get("Authorization")}
        body = json.dumps(told).encode()
        self.send_response(418)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        os._exit(1)

    def log_message(self, *_: object) -> None:
        return


if __name__ == "__main__":
    assert os.environ["HEALTH_CHECK_PATH"] == "/healthz"
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Face).serve_forever()
