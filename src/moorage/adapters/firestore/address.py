"""Which database a URL means. Its parts go into every request, so they are checked by Google's rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

_PROJECT = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_DATABASE = re.compile(r"\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9]")
_EMULATOR = re.compile(r"[A-Za-z0-9.-]+:[0-9]{1,5}|\[[0-9A-Fa-f:]+\]:[0-9]{1,5}")
_FORM = "firestore://project/database, with database (default) unless it has a name"


@dataclass(frozen=True, slots=True)
class Address:
    """`emulator` is host:port; None for Google's service, or what FIRESTORE_EMULATOR_HOST says."""

    project: str
    database: str
    emulator: str | None = None

    def __str__(self) -> str:
        return f"database {self.database} of project {self.project}"


def parse(url: str) -> Address:
    """Reads `firestore://project/database`, with `?emulator=host:port` for tests. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme != "firestore" or parts.fragment:
        raise ValueError(f"the database URL is not Firestore's; give {_FORM}")
    project, database = parts.netloc, unquote(parts.path).strip("/")
    if not _PROJECT.fullmatch(project):
        raise ValueError(
            "the Firestore URL names no project: an id has 6 to 30 lower-case letters, digits and hyphens;"
            f" give {_FORM}"
        )
    if not _DATABASE.fullmatch(database):
        raise ValueError(
            "the Firestore URL names no database: an id has 4 to 63 lower-case letters, digits and hyphens;"
            f" give {_FORM}"
        )
    options = parse_qsl(parts.query, keep_blank_values=True)
    if any(name != "emulator" for name, _ in options) or len(options) > 1:
        raise ValueError("the Firestore URL has an option that is none; the only one is emulator=host:port")
    emulator = options[0][1] if options else None
    if emulator is not None and not _EMULATOR.fullmatch(emulator):
        raise ValueError("the Firestore URL's emulator is not host:port")
    return Address(project, database, emulator)
