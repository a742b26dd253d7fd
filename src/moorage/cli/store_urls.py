"""URLs of stores: shown without what opens them, and told apart however they are spelt.

A command's arguments can be seen by every user of the machine, so that a URL may be given by the name of the
environment variable that holds it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from moorage.cli.failures import NotThere, Usage

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

VARIABLE = "env:"
_FORMS = "sqlite:////path/to.db, postgresql://user@host/database or firestore://project/database"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
Place: TypeAlias = tuple[str | int | None, ...]


def given(argument: str) -> str:
    """The URL itself. Raises Usage for a variable that is not set."""
    if not argument.startswith(VARIABLE):
        return argument
    name = argument.removeprefix(VARIABLE)
    value = os.environ.get(name, "")
    if not value:
        raise Usage(
            f"The environment variable {name or '(without a name)'} is not set.", f"Set it to {_FORMS}."
        )
    return value


def parsed(url: str) -> URL:
    """Raises Usage, which does not repeat what may hold a password."""
    from sqlalchemy.engine import make_url  # the other commands start faster without it
    from sqlalchemy.exc import ArgumentError

    try:
        read = make_url(url)
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError
        raise Usage("That is no URL of a store.", f"Write it as {_FORMS}.") from None
    if "@" in (read.host or ""):  # the end of a password
        raise Usage("That is no URL of a store.", "Write @ in a password as %40.")
    return read


def shown(url: str) -> str:
    """To recognise a store by, without a password and without options, which may hold one as well."""
    text = parsed(url).set(query={}).render_as_string(hide_password=True)
    return text.replace("%28default%29", "(default)")  # as Firestore calls a database, and people write it


def refuse_missing_file(url: str) -> None:
    """Opening it would make an empty one, which nobody meant who wants to read it."""
    file = _file(parsed(url))
    if file is not None and not file.is_file():
        raise NotThere("store", shown(url), f"There is no file {file}. Is the path absolute (four slashes)?")


def same(one: str, other: str) -> bool:
    """Whether both lead to one store, as far as URLs can tell."""
    return _place(parsed(one)) == _place(parsed(other))


def _place(url: URL) -> Place:
    kind = url.get_backend_name()
    file = _file(url)
    if file is not None:
        try:
            status = file.stat()
        except OSError:
            return kind, str(file.resolve())
        return kind, status.st_dev, status.st_ino
    options = tuple(str(url.query.get(name, "")) for name in ("host", "port", "dbname", "emulator"))
    host = "localhost" if url.host in _LOOPBACK else (url.host or "").lower()
    if kind == "postgresql":
        return kind, host, url.port or 5432, url.database or url.username, *options
    return kind, host, url.port, url.database or "(default)", *options


def _file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database)
