"""A file as a result: a picture or a video. Each face decides how it leaves: encoded or stored."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Media:
    """One encoded file. `width` and `height` are in pixels, `frames` is how many a video has."""

    data: bytes = field(repr=False)
    content_type: str
    width: int | None = None
    height: int | None = None
    frames: int | None = None
