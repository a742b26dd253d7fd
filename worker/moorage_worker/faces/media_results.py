"""How pictures and videos leave: inside the answer as base64, or in the owner's bucket, told by address."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from moorage_worker.cache.results import ResultBucket
from moorage_worker.engines.media import Media
from moorage_worker.errors import BadInput
from moorage_worker.json_types import Json, kind

Send = Callable[[object], object]


@dataclass(frozen=True, slots=True)
class MediaResults:
    bucket: ResultBucket

    def sender(self, wanted: Json, request_id: str) -> Send:
        """Puts what is sent in the place of every `Media` in an answer. Raises BadInput, before any work is
        done, for a way that there is not."""
        if wanted in (None, "base64"):
            return lambda outputs: _replaced(outputs, _inline)
        if wanted != "s3":
            said = repr(wanted) if isinstance(wanted, str) else kind(wanted)
            raise BadInput("parameters.result", "one_of", f"must be base64 or s3, got {said}")
        self.bucket.require()
        numbers = count()

        def store(media: Media) -> dict[str, object]:
            suffix = mimetypes.guess_extension(media.content_type) or ".bin"
            stored = self.bucket.put(f"{request_id}/{next(numbers)}{suffix}", media.data, media.content_type)
            return {**_facts(media), "url": stored.url, "download_url": stored.download_url}

        return lambda outputs: _replaced(outputs, store)


def _replaced(value: object, each: Callable[[Media], object]) -> object:
    if isinstance(value, Media):
        return each(value)
    if isinstance(value, dict):
        return {name: _replaced(inner, each) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(inner, each) for inner in value]
    return value


def _inline(media: Media) -> dict[str, object]:
    return {**_facts(media), "base64": base64.b64encode(media.data).decode()}


def _facts(media: Media) -> dict[str, object]:
    sizes = {"width": media.width, "height": media.height, "frames": media.frames}
    known = {name: value for name, value in sizes.items() if value is not None}
    return {"content_type": media.content_type, **known}
