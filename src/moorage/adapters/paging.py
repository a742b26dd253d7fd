"""Cursors: where the last page ended, as text that a client hands back unread.

A page goes by (created_at, id) downwards, so rows that arrive meanwhile never shift the pages after them.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """The last row of a page: its creation in microseconds since 1970, and its id."""

    created_at: int
    id: str


def encode_cursor(position: Position) -> str:
    raw = f"{position.created_at}.{position.id}".encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode_cursor(cursor: str) -> Position:
    """Raises ValueError for text that is no cursor of ours."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        created_at, dot, id_ = raw.partition(".")
        position = Position(int(created_at), id_)
    except (ValueError, binascii.Error) as error:
        raise ValueError("the cursor is not one that a list of ours has returned") from error
    # Read strictly, so that each position has exactly one text and a number stays one the database can hold.
    if not dot or not id_ or not 0 <= position.created_at < 2**63 or encode_cursor(position) != cursor:
        raise ValueError("the cursor is not one that a list of ours has returned")
    return position
