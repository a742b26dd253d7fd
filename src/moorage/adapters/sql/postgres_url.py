"""What a PostgreSQL URL asks of the driver, checked before anything is connected to.

No message here repeats a part of the URL: where it cannot be read, any part of it may be the password.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

EXAMPLE = "postgresql://user:password@host:5432/database"

# An outage is noticed within seconds on a silent network too. All of these can be set in the URL.
_DEFAULTS: Mapping[str, str | int] = {
    "application_name": "moorage",
    "client_encoding": "utf8",
    "connect_timeout": 5,  # seconds
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}


def connection_parameters(url: str) -> Mapping[str, str | int]:
    """Keywords of `psycopg.connect`. Raises ValueError for a URL that cannot be one."""
    unreadable = ValueError(
        f"the database URL cannot be read; give {EXAMPLE}, with / @ : ? # % in names and passwords"
        " percent-encoded"
    )
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise unreadable from None
    if "@" in (parsed.host or ""):  # the end of a password
        raise unreadable
    if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ValueError(f"the database URL is not PostgreSQL's; give {EXAMPLE}")
    if not parsed.database:
        raise ValueError(f"the PostgreSQL URL names no database; give {EXAMPLE}")
    parameters = {**_DEFAULTS, **_given(parsed)}
    try:
        make_conninfo("", **parameters)
    except psycopg.Error as error:
        raise ValueError(f"an option in the PostgreSQL URL cannot be: {error}") from None
    return parameters


def _given(url: URL) -> Mapping[str, str | int]:
    if any(not isinstance(value, str) for value in url.query.values()):
        raise ValueError("an option is given twice in the PostgreSQL URL")
    named = {
        "dbname": url.database,
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
    }
    return {**{name: value for name, value in named.items() if value}, **url.query}  # type: ignore[dict-item]


def place(parameters: Mapping[str, str | int]) -> str:
    """Where that is, as errors tell it."""
    host = parameters.get("host") or parameters.get("hostaddr") or "the local socket"
    port = f":{parameters['port']}" if "port" in parameters else ""
    return f"{parameters['dbname']!r} at {host}{port}"
