"""`moorage serve` with a store that can never be used: it ends, and says which setting is wrong and why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine, text

from moorage.testing.postgres import PostgresServer

KEYS = {"MOORAGE_SECRET_KEYS": "k1:" + "A" * 43 + "=", "MOORAGE_INSTALLATION": "wrong-store"}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


def serve(data_dir: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MOORAGE_", "GCP_"))}
    command = [sys.executable, "-m", "moorage.cli", "serve", "--port", "0"]
    where = {"MOORAGE_DATA_DIR": str(data_dir)}
    return subprocess.run(
        command, env={**kept, **where, **environ}, capture_output=True, text=True, timeout=30, check=False
    )


def refused(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    assert ended.returncode not in (0, 130), ended.stderr
    assert "Traceback" not in ended.stderr
    assert "s3cret" not in ended.stderr
    told = " ".join(ended.stderr.split())
    for word in words:
        assert word in told, told


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("mysql://u:s3cret@localhost/x", "postgresql://"),
        ("postgres is here", "postgresql://"),
        ("postgresql://", "postgresql://user"),
        ("firestore://", "firestore://project"),
        ("sqlite://", "sqlite:///"),
    ],
)
def test_a_url_that_cannot_be_one(tmp_path: Path, url: str, word: str) -> None:
    refused(serve(tmp_path, MOORAGE_DATABASE_URL=url, **KEYS), word)


def test_a_wrong_password_and_a_database_that_is_not_there(tmp_path: Path, server: PostgresServer) -> None:
    there = urlsplit(server.new_database())
    elsewhere = there._replace(path="/nowhere").geturl()
    refused(serve(tmp_path, MOORAGE_DATABASE_URL=elsewhere, **KEYS), "nowhere")
    stranger = there._replace(netloc=f"{there.username}:s3cret@{there.hostname}:{there.port}").geturl()
    refused(serve(tmp_path, MOORAGE_DATABASE_URL=stranger, **KEYS), "password")


def test_a_schema_of_a_newer_release(tmp_path: Path, server: PostgresServer) -> None:
    for url in (server.new_database(), f"sqlite:///{tmp_path / 'newer.db'}"):
        assert _stamped(tmp_path, url) == 0
        refused(serve(tmp_path, MOORAGE_DATABASE_URL=url, **KEYS), "v9999", "newer")


def _stamped(tmp_path: Path, url: str) -> int:
    """Made by this release, and then said to be of one that does not exist yet."""
    program = (
        "import asyncio, sys; from moorage.open_store import open_store\n"
        "async def main(): await (await open_store(sys.argv[1])).aclose()\n"
        "asyncio.run(main())"
    )
    made = subprocess.run([sys.executable, "-c", program, url], timeout=30, check=False).returncode
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9999'"))
    engine.dispose()
    return made


def test_keys_that_replicas_must_share(tmp_path: Path) -> None:
    url = "postgresql://u:s3cret@127.0.0.1:1/x"
    refused(serve(tmp_path, MOORAGE_DATABASE_URL=url), "MOORAGE_SECRET_KEYS", "openssl rand")
    refused(
        serve(tmp_path, MOORAGE_DATABASE_URL=url, MOORAGE_SECRET_KEYS=KEYS["MOORAGE_SECRET_KEYS"]),
        "MOORAGE_INSTALLATION",
    )
    refused(serve(tmp_path, GCP_PROJECT_ID="a-project"), "MOORAGE_SECRET_KEYS")
    refused(serve(tmp_path, MOORAGE_TICK_ONLY="true"), "MOORAGE_TICK_TOKEN")
