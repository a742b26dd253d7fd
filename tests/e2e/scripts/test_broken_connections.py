"""A connection that breaks between a script and the service: what was done is done once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.e2e.conftest import DIGITS, Installation

from .conftest import Script

MODEL = "moorage/digits"
SAMPLE = f"@{DIGITS / 'samples' / '4.png'}"


class Lossy(ThreadingHTTPServer):
    """Passes everything on to `target`, and cuts the connection `losses` times: after a create was answered
    there, and after the first bytes of a stream of events."""

    daemon_threads = True

    def __init__(self, target: str, losses: int) -> None:
        super().__init__(("127.0.0.1", 0), Between)
        self.target = target
        self.lost_creates = self.lost_streams = 0
        self.losses = losses
        self.creates: list[str | None] = []
        self.http = httpx.Client(trust_env=False, timeout=60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Between(BaseHTTPRequestHandler):
    server: Lossy

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
        url = self.server.target + self.path
        with self.server.http.stream(self.command, url, content=body, headers=headers) as answer:
            if self.command == "POST" and self.path == "/v1/deployments":
                self.server.creates.append(self.headers["idempotency-key"])
                if self.server.lost_creates < self.server.losses:
                    self.server.lost_creates += 1
                    return
            self._pass_on(answer)

    do_GET = do_POST = do_DELETE = do_any  # noqa: N815  # the names that the base class calls

    def _pass_on(self, answer: httpx.Response) -> None:
        self.send_response(answer.status_code)
        for name in ("content-type", "retry-after"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        stream = answer.headers.get("content-type", "").startswith("text/event-stream")
        if not stream:
            answer.read()
            self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        if not stream:
            self.wfile.write(answer.content)
            return
        for part in answer.iter_bytes():
            self.wfile.write(part)
            self.wfile.flush()
            if self.server.lost_streams < self.server.losses:
                self.server.lost_streams += 1
                return

    def log_message(self, format: str, *args: object) -> None:
        """Not into the test's output."""


@contextmanager
def lossy(target: str, losses: int) -> Iterator[Lossy]:
    with Lossy(target, losses) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.http.close()


@pytest.fixture
def smoke(access: dict[str, str]) -> Script:
    return Script("smoke.py", access)


def test_lost_answers_deploy_once_and_lose_no_event(installation: Installation, smoke: Script) -> None:
    before = len(installation.json("ls", "--all"))
    with lossy(installation.url, losses=2) as between:
        ended = smoke(between.url, "--model", MODEL, "--input", SAMPLE)
    assert ended.code == 0, ended.err
    assert len(between.creates) == 3
    assert len(set(between.creates)) == 1
    assert between.lost_streams == 2
    for phase in ("validating", "loading_model", "ready", "deleted"):
        assert ended.err.count(f"  {phase} ") == 1, ended.err
    assert len(installation.json("ls", "--all")) == before + 1
    assert installation.json("ls") == []
    assert installation.replicas() == []


def test_a_create_that_nobody_knows_of_is_found_out_about(installation: Installation, smoke: Script) -> None:
    """No answer comes as often as it is asked; the clean-up's own question is the first that is answered."""
    with lossy(installation.url, losses=5) as between:
        ended = smoke(between.url, "--model", MODEL, "--input", SAMPLE)
    assert ended.code == 5
    assert "create: FAILED" in ended.err
    assert "Nothing of it is left." in ended.err
    assert (len(between.creates), len(set(between.creates))) == (6, 1)
    assert installation.json("ls") == []
    assert installation.replicas() == []


def test_where_nobody_answers_any_more_it_says_that_something_may_be_left(
    installation: Installation, smoke: Script
) -> None:
    with lossy(installation.url, losses=1000) as between:
        ended = smoke(between.url, "--model", MODEL, "--input", SAMPLE)
    assert ended.code == 5
    assert "may have been made, and cost money" in ended.err
    (there,) = installation.json("ls")
    assert there["name"].startswith("smoke-")
    assert installation.moorage("delete", there["name"]).returncode == 0
