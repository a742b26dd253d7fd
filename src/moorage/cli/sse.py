"""Reads server-sent events, as much of the format as an API's stream needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MEDIA_TYPE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Message:
    data: str
    event: str = "message"
    id: str | None = None


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """Of lines without their ends. A message that was cut off is not told, as the format has it."""
    data: list[str] = []
    event, id_ = "message", None
    for line in lines:
        if not line:
            if data:
                yield Message("\n".join(data), event, id_)
            data, event = [], "message"
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            event = value
        elif field == "id":
            id_ = value
