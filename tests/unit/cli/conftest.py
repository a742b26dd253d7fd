"""An HTTP server on loopback that answers as a test tells it, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """`body` is sent as JSON unless it is bytes. `cut` ends the connection after the body, or instead of an
    answer when the status is 0."""

    status: int = 200
    body: Any = None
    content_type: str = "application/json"
    cut: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Service:
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: Callable[[Asked], Answer] = lambda _: Answer(404, {"detail": "nothing here", "code": "x"})

    def in_turn(self, *answers: Answer) -> None:
        left = list(answers)
        self.answers = lambda _: left.pop(0)


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, json.loads(raw) if raw else None)
            service.asked.append(asked)
            answer = service.answers(asked)
            self.close_connection = answer.cut
            if answer.status == 0:
                return
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("content-type", answer.content_type)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if not answer.cut:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _any  # noqa: N815 - names of the base class

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def service() -> Iterator[Service]:
    told = Service()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(told)) as server:
        told.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        server.shutdown()
        thread.join()


@pytest.fixture
def answer() -> type[Answer]:
    return Answer
