"""Pages of the store in memory: newest first, with cursors that stay put while rows arrive."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import TypeVar

from moorage.domain.delivery import Delivery
from moorage.domain.deployment import Deployment
from moorage.domain.model_version import ModelVersion
from moorage.ports.store import Page

P = TypeVar("P", Deployment, Delivery, ModelVersion)


def page(rows: Iterable[P], cursor: str | None, limit: int) -> Page[P]:
    last = None if cursor is None else _decode(cursor)
    newest = sorted(rows, key=_position, reverse=True)
    if last is not None:
        newest = [row for row in newest if _position(row) < last]
    items = tuple(newest[:limit])
    more = len(newest) > limit and items
    return Page(items, _encode(_position(items[-1])) if more else None)


def _position(row: Deployment | Delivery | ModelVersion) -> tuple[datetime, str]:
    return row.created_at, row.id


def _encode(position: tuple[datetime, str]) -> str:
    created_at, id_ = position
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {id_}".encode()).decode()


def _decode(cursor: str) -> tuple[datetime, str]:
    position = None
    with suppress(ValueError):
        text, _, id_ = base64.b64decode(cursor, altchars=b"-_", validate=True).decode().partition(" ")
        position = (datetime.fromisoformat(text), id_)
    if position is None or position[0].tzinfo is None or _encode(position) != cursor:
        raise ValueError("the cursor is not one that a list of ours has returned")
    return position
