"""The copy of a model on this machine's disk: filled by one process at a time, whole or not there.

Files arrive in a folder beside the copy and are renamed into it one by one, each when it has its size; the
marker comes last. So a file in the copy is whole even when the marker is not there yet, and a fill that was
cut off goes on with the files that are missing. A lock on the model's folder keeps others waiting; it falls
with the process that holds it.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moorage_worker.cache.errors import CopyBroken
from moorage_worker.cache.layout import (
    MARKER,
    FileEntry,
    Marker,
    ModelKey,
    NotACopy,
    differences,
    parse_marker,
)
from moorage_worker.cache.progress import written_bytes

log = logging.getLogger(__name__)

_INCOMING = ".incoming-"


class DiskCache:
    """Copies below one folder, laid out as in a bucket."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, model: ModelKey) -> Path:
        return self._root / model.folder

    def marker(self, model: ModelKey) -> Marker | None:
        """What the copy of a model holds; None when there is no whole one."""
        folder = self.folder(model)
        try:
            marker = parse_marker((folder / MARKER).read_bytes(), model)
        except (OSError, NotACopy):
            return None
        return None if differences(marker.files, _sizes(folder, marker.files)) else marker

    @contextmanager
    def filling(self, model: ModelKey) -> Iterator[Filling]:
        """Waits for others that fill the same copy. Raises OSError when the disk cannot be written."""
        folder = self.folder(model)
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f"{model.commit}.lock")) as alone:
            if alone:
                _clear_away(folder)
            incoming = Path(tempfile.mkdtemp(prefix=f"{model.commit}{_INCOMING}", dir=folder.parent))
            try:
                yield Filling(folder, incoming)
            finally:
                shutil.rmtree(incoming, ignore_errors=True)


class Filling:
    """Bring files to `incoming`, `keep` each, then `finish`."""

    def __init__(self, folder: Path, incoming: Path) -> None:
        self._folder = folder
        self._kept = 0
        self.incoming = incoming

    def missing(self, files: Iterable[FileEntry]) -> list[FileEntry]:
        """Those that are not in the copy yet, or not with their size."""
        listed = list(files)
        there = _sizes(self._folder, listed)
        return [file for file in listed if there.get(file.path) != file.size]

    def keep(self, file: FileEntry) -> None:
        """Move an arrived file into the copy. Raises CopyBroken when it has not its size."""
        arrived, place = self.incoming / file.path, self._folder / file.path
        wrong = differences([file], _sizes(self.incoming, [file]))
        if wrong:
            raise CopyBroken(wrong[0])
        place.parent.mkdir(parents=True, exist_ok=True)
        arrived.replace(place)
        self._kept += file.size

    def arrived(self) -> int:
        """Bytes that this fill has brought so far, of files under way too."""
        return self._kept + written_bytes(self.incoming)

    def finish(self, marker: Marker) -> Marker:
        """Write the marker, joined with one that is there. Raises CopyBroken when files are missing."""
        wrong = differences(marker.files, _sizes(self._folder, marker.files))
        if wrong:
            raise CopyBroken("; ".join(wrong[:3]))
        whole = marker.joined(self._earlier(marker.model))
        written = self.incoming / MARKER
        written.write_text(whole.to_json(), encoding="utf-8")
        written.replace(self._folder / MARKER)
        return whole

    def _earlier(self, model: ModelKey) -> Marker | None:
        try:
            earlier = parse_marker((self._folder / MARKER).read_bytes(), model)
        except (OSError, NotACopy):
            return None
        return None if differences(earlier.files, _sizes(self._folder, earlier.files)) else earlier


def _sizes(folder: Path, files: Iterable[FileEntry]) -> dict[str, int]:
    sizes = {}
    for file in files:
        path = folder / file.path
        if path.is_file():
            sizes[file.path] = path.stat().st_size
    return sizes


def _clear_away(folder: Path) -> None:
    """What fills left behind that were cut off; only with the lock, since nobody fills then."""
    for left in folder.parent.glob(f"{folder.name}{_INCOMING}*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Holds the lock; False on a file system that has none, where two fills only do the same work twice."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that fills %s", path.with_suffix(""))
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            log.warning("no lock on %s: %s", path, error)
            yield False
            return
        yield True
