"""Models in the user's bucket: the private scope."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moorage_worker.cache.disk import Filling
from moorage_worker.cache.errors import BucketMissing, CopyBroken, ObjectMissing, PermissionMissing
from moorage_worker.cache.layout import (
    MARKER,
    FileEntry,
    Marker,
    ModelKey,
    NotACopy,
    differences,
    parse_marker,
)
from moorage_worker.cache.s5cmd import Copy, S5cmd
from moorage_worker.cache.settings import BucketPlace

OnFile = Callable[[FileEntry], None]


@dataclass(frozen=True, slots=True)
class State:
    """What a look at a model in the bucket found: its marker, and why the copy is not whole ([] if it is)."""

    marker: Marker | None
    faults: list[str]

    @property
    def whole(self) -> Marker | None:
        return self.marker if not self.faults else None


class ModelBucket:
    """Whole copies of models below an `s3://` URL. All blocks, and raises StorageTrouble."""

    def __init__(self, place: BucketPlace, tool: S5cmd | None = None) -> None:
        self._place = place
        self._tool = tool or S5cmd(place)

    def url(self, model: ModelKey) -> str:
        return f"{self._place.url}/{model.folder}"

    def look(self, model: ModelKey) -> State:
        """The marker first; only what it lists counts."""
        try:
            marker = parse_marker(self._read_marker(model), model)
        except ObjectMissing:
            return State(None, ["it has no marker"])
        except NotACopy as error:
            return State(None, [str(error)])
        return State(marker, differences(marker.files, self._sizes(model)))

    def download(self, model: ModelKey, files: Iterable[FileEntry], filling: Filling) -> None:
        """Bring these files into a copy on disk, each kept as it is whole.

        Raises CopyBroken when one is not what the marker said.
        """
        url, arriving = self.url(model), {str(filling.incoming / file.path): file for file in files}
        copies = [Copy(f"{url}/{file.path}", path) for path, file in arriving.items()]
        self._tool.copy(copies, lambda copy: filling.keep(arriving[copy.destination]))

    def upload(self, marker: Marker, sources: Mapping[str, Path], on_file: OnFile = lambda _: None) -> bool:
        """Write what is missing of a copy, then its marker; False when it was there already.

        `sources` are the local files by path. A copy of the same commit that is there is kept and added to.
        """
        model = marker.model
        found = self.look(model)
        if found.whole is not None and found.whole.covers(marker):
            return False
        url, there = self.url(model), self._sizes(model)
        missing = {f"{url}/{f.path}": f for f in marker.files if there.get(f.path) != f.size}
        copies = [Copy(str(sources[file.path].resolve()), target) for target, file in missing.items()]
        self._tool.copy(copies, lambda copy: on_file(missing[copy.destination]))
        faults = differences(marker.files, self._sizes(model))
        if faults:
            raise CopyBroken(f"{url}: after the upload {'; '.join(faults[:3])}")
        earlier = found.marker if found.marker and not differences(found.marker.files, there) else None
        whole = marker.joined(earlier)
        self._tool.write(f"{url}/{MARKER}", whole.to_json().encode(), "application/json")
        return True

    def _read_marker(self, model: ModelKey) -> bytes:
        url = f"{self.url(model)}/{MARKER}"
        try:
            return self._tool.read(url)
        except (PermissionMissing, BucketMissing):
            # Reading asks with HEAD, whose refusals carry no reason. A listing's do.
            self._sizes(model)
            raise

    def _sizes(self, model: ModelKey) -> dict[str, int]:
        try:
            return self._tool.list(self.url(model))
        except ObjectMissing:
            return {}
