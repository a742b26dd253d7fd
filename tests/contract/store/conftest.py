"""One PostgreSQL for all tests of a pytest worker: starting one takes longer than most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from moorage.adapters.sql.tables import metadata
from moorage.testing.postgres import PostgresMissing, PostgresServer

SHARED = "shared"
EMPTY = ";".join(f"DELETE FROM {table}" for table in metadata.tables)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Not to be stopped; a test that stops one starts its own."""
    try:
        server = PostgresServer().__enter__()
    except PostgresMissing as missing:
        pytest.skip(f"no PostgreSQL: {missing}")
    yield server
    server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def shared_database(postgres: PostgresServer) -> str:
    postgres.execute(f"CREATE DATABASE {SHARED}")
    return postgres.url_of(SHARED)


@pytest.fixture
def emptied(postgres: PostgresServer, shared_database: str) -> Iterator[str]:
    """The URL of a database without rows, in which a store has been before: that is faster than a new one."""
    yield shared_database
    postgres.execute(EMPTY, SHARED)
