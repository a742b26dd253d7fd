"""How a model lies in a cache, and when a copy of it is whole: pure rules, the same for bucket and disk.

A copy is `{owner}--{name}/{commit}/` with the repository's paths below. The marker beside them is written
last and lists every file with its size. Without the marker, or with one file missing or of another size,
there is no copy. A commit's files never change, so two writers write the same bytes to the same keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from moorage_worker.json_types import Json

MARKER = ".moorage-complete.json"
MAX_FILES = 20_000
_MAX_PATH = 1024  # bytes; S3 takes no longer keys
# Repositories carry many small files; only with one of these can there be a model.
_WEIGHTS = (".safetensors", ".bin", ".onnx", ".pt", ".pth", ".ckpt", ".gguf", ".msgpack", ".h5")


class NotACopy(ValueError):
    """A marker or manifest that cannot be believed; the message says why."""


@dataclass(frozen=True, slots=True)
class ModelKey:
    """A repository at a commit: what a cache is asked for."""

    repo_id: str
    commit: str

    @property
    def folder(self) -> str:
        """The copy's place below the root of a cache."""
        return f"{self.repo_id.replace('/', '--')}/{self.commit}"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """`path` as in the repository, `size` in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Marker:
    """What a whole copy holds. `engines` are those whose files are all in it; () when nobody said so."""

    model: ModelKey
    files: tuple[FileEntry, ...]
    engines: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        return {file.path: file.size for file in self.files}

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_json(self) -> str:
        told = {
            "repo_id": self.model.repo_id,
            "revision": self.model.commit,
            "engines": sorted(self.engines),
            "files": [{"path": file.path, "size": file.size} for file in self.files],
        }
        return json.dumps(told, indent=1)

    def joined(self, other: Marker | None) -> Marker:
        """Of two copies of one commit in the same place. This one's sizes win."""
        if other is None or other.model != self.model:
            return self
        sizes = {**other.sizes, **self.sizes}
        files = tuple(FileEntry(path, sizes[path]) for path in sorted(sizes))
        return Marker(self.model, files, tuple(sorted({*self.engines, *other.engines})))

    def covers(self, other: Marker) -> bool:
        """Whether all that `other` lists is listed here, its engines too."""
        return other.sizes.items() <= self.sizes.items() and set(other.engines) <= set(self.engines)


def parse_marker(text: str | bytes, model: ModelKey) -> Marker:
    """Raises NotACopy when it is no marker of this model, or lists what no repository can hold."""
    try:
        told: Json = json.loads(text)
    except ValueError as error:
        raise NotACopy(f"the marker is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise NotACopy("the marker is not a JSON object")
    if (told.get("repo_id"), told.get("revision")) != (model.repo_id, model.commit):
        raise NotACopy("the marker is of another model or commit")
    engines = told.get("engines")
    named = tuple(name for name in engines if isinstance(name, str)) if isinstance(engines, list) else ()
    return Marker(model, tuple(entry_of(item) for item in entries(told)), named)


def entries(told: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    """The objects of the member `files`. Raises NotACopy when there are none, too many, or one twice."""
    files = told.get("files")
    if not isinstance(files, list) or not files:
        raise NotACopy("it lists no files")
    if len(files) > MAX_FILES:
        raise NotACopy(f"it lists more than {MAX_FILES} files")
    objects = [item for item in files if isinstance(item, dict)]
    if len(objects) != len({str(item.get("path")) for item in objects}) or len(objects) != len(files):
        raise NotACopy("its files must be objects, each path once")
    return list(objects)


def entry_of(item: Mapping[str, Json]) -> FileEntry:
    """One file of a marker or manifest. Raises NotACopy for a path that would leave the model's folder."""
    path, size = item.get("path"), item.get("size")
    if not isinstance(path, str) or not is_safe_path(path):
        raise NotACopy(f"it lists a path that no repository has: {path!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise NotACopy(f"{path} has no size in bytes")
    return FileEntry(path, size)


def is_safe_path(path: str) -> bool:
    """A relative path with `/` that stays where it is put, and is not the marker's."""
    parts = path.split("/")
    if path == MARKER or not path.isprintable() or "\\" in path or len(path.encode()) > _MAX_PATH:
        return False
    return all(part not in ("", ".", "..") for part in parts) and not PurePosixPath(path).is_absolute()


def differences(wanted: Iterable[FileEntry], there: Mapping[str, int]) -> list[str]:
    """What keeps a copy from being whole, one line a file; [] when it is whole. `there`: sizes by path."""
    lines = []
    for file in wanted:
        size = there.get(file.path)
        if size is None:
            lines.append(f"{file.path} is missing")
        elif size != file.size:
            lines.append(f"{file.path} has {size} bytes, not {file.size}")
    return lines


def has_weights(paths: Iterable[str]) -> bool:
    """Whether these files can be a model at all."""
    return any(path.endswith(_WEIGHTS) or ".onnx" in path for path in paths)
