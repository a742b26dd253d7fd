"""One PostgreSQL for all tests of a pytest worker: starting one takes longer than most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from moorage.testing.postgres import PostgresMissing, PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Not to be stopped; a test that stops one starts its own."""
    try:
        server = PostgresServer().__enter__()
    except PostgresMissing as missing:
        pytest.skip(f"no PostgreSQL: {missing}")
    yield server
    server.__exit__(None, None, None)
