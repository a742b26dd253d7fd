"""Results too large to be answered: kept in the user's bucket, and told by address."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from moorage_worker.cache.errors import ResultNotStored, StorageTrouble
from moorage_worker.cache.layout import is_safe_path
from moorage_worker.cache.s5cmd import S5cmd
from moorage_worker.cache.settings import BucketPlace, CacheSettings
from moorage_worker.errors import BadInput

FOLDER = "results"
DOWNLOADABLE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class StoredResult:
    """`url` is `s3://…`, for the owner's own tools; `download_url` opens it for a day, for whoever has it."""

    url: str
    download_url: str = field(repr=False)


class ResultBucket:
    """The folder `results` below the private cache's URL. Without that bucket each result is refused."""

    def __init__(self, place: BucketPlace | None) -> None:
        self._place = place

    @classmethod
    def of(cls, settings: CacheSettings) -> ResultBucket:
        return cls(settings.bucket)

    def require(self) -> BucketPlace:
        """Call it before the work is done. Raises BadInput when there is nowhere to put its result."""
        if self._place is None:
            raise BadInput(
                "parameters.result",
                "no_bucket",
                "s3 needs a bucket: deploy with cache_scope private, its URL and its keys, or leave it out",
            )
        return self._place

    def put(self, name: str, data: bytes, content_type: str) -> StoredResult:
        """Upload one result; `name` is its path below the folder, such as `{job}/0.png`. Blocks.

        Raises BadInput when there is no bucket, ResultNotStored when it cannot be written.
        """
        place = self.require()
        if not is_safe_path(name):
            raise ResultNotStored(f"{name!r} is no name for a result")
        tool, url = S5cmd(place), f"{place.url}/{FOLDER}/{name}"
        try:
            tool.write(url, data, content_type)
            return StoredResult(url, tool.presign(url, DOWNLOADABLE))
        except StorageTrouble as error:
            raise ResultNotStored(f"the result was made and cannot be stored: {error}") from error
