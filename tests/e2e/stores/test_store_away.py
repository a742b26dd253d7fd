"""The service while its PostgreSQL is not there: at the start, later, and afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from moorage.testing.postgres import PostgresServer

PASSWORD = "a long enough password"
SIGN_IN = {"username": "owner", "password": PASSWORD}


@dataclass(frozen=True)
class Replica:
    client: httpx.Client
    process: subprocess.Popen[bytes]
    log: Path

    def until(self, path: str, status: int, seconds: float = 20) -> httpx.Response:
        """The first answer with that status; whatever is answered before is an answer too."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = self.client.get(path)
            except httpx.ConnectError:
                answer = None
            if answer is not None and answer.status_code == status:
                return answer
            assert time.monotonic() < deadline, (answer and answer.text, self.log.read_text()[-3000:])
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")},
        "MOORAGE_DATA_DIR": str(tmp_path / "var"),
        "MOORAGE_PORT": str(port),
        "MOORAGE_SECRET_KEYS": "k1:" + b64encode(os.urandom(32)).decode(),
        "MOORAGE_INSTALLATION": "store-away",
        "MOORAGE_BOOTSTRAP_USER": "owner",
        "MOORAGE_BOOTSTRAP_PASSWORD": PASSWORD,
        "MOORAGE_LOG_FORMAT": "json",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture
def replica(environ: dict[str, str], server: PostgresServer, tmp_path: Path) -> Iterator[Replica]:
    """Begun while the database is not there."""
    url = server.new_database()
    server.stop()
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "moorage.cli", "serve"],
            env={**environ, "MOORAGE_DATABASE_URL": url},
            stdout=file,
            stderr=file,
        )
    base = f"http://127.0.0.1:{environ['MOORAGE_PORT']}"
    try:
        with httpx.Client(base_url=base, trust_env=False, timeout=20) as client:
            yield Replica(client, process, log)
    finally:
        process.terminate()
        process.wait(15)


def test_it_waits_for_its_store_and_goes_on_when_it_is_back(replica: Replica, server: PostgresServer) -> None:
    refused = replica.until("/v1/deployments", 503)
    _tells_that_the_store_is_away(refused)
    assert replica.client.get("/health").status_code == 200, "alive: starting it again would not help"
    assert replica.client.get("/ready").status_code == 503

    server.start()
    replica.until("/ready", 200)
    token = replica.client.post("/auth/token", json=SIGN_IN).json()["token"]
    replica.client.headers["Authorization"] = f"Bearer {token}"
    assert replica.client.get("/v1/deployments").json()["items"] == []

    server.stop()
    _tells_that_the_store_is_away(replica.until("/v1/deployments", 503))
    replica.until("/ready", 503)
    body = {"name": "later", "role": "viewer"}
    _tells_that_the_store_is_away(replica.client.post("/v1/keys", json=body))
    assert replica.client.get("/health").status_code == 200

    server.start()
    replica.until("/ready", 200)
    assert replica.client.post("/v1/keys", json=body).status_code == 201
    text = replica.log.read_text()
    assert "Traceback" not in text, text
    assert PASSWORD not in text


def test_ctrl_c_ends_the_waiting(replica: Replica) -> None:
    replica.until("/v1/deployments", 503)
    replica.process.terminate()
    assert replica.process.wait(15) == 0


def _tells_that_the_store_is_away(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["code"] == "store_unavailable"
    assert "127.0.0.1" not in answer.text, "where the store is, is not the caller's business"
