"""A folder on disk, described the way the Hub describes a repository.

What the Hub shows beside the files (library, task, dtypes, commit) it derives from the model card and the
files; so is it here, that the code under test reads the same facts in the same places.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from huggingface_hub import metadata_load, parse_local_safetensors_file_metadata
from huggingface_hub.errors import SafetensorsParsingError

Json = dict[str, object]

_LFS_BYTES = 10 * 1024**2
_LFS_SUFFIXES = (".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".onnx_data", ".pt", ".safetensors")
# A broken header is served as it is, and nothing is derived from it, as the Hub does.
_NOT_SAFETENSORS = (SafetensorsParsingError, AttributeError, TypeError, ValueError, RecursionError)
_TASKS = {
    "ForCausalLM": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
    "ForMaskedLM": "fill-mask",
}


@dataclass(frozen=True, slots=True)
class RepositoryFile:
    name: str
    path: Path
    size: int
    blob_id: str  # what git calls the content
    sha256: str
    lfs: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob_id

    def as_sibling(self, *, blobs: bool) -> Json:
        if not blobs:
            return {"rfilename": self.name}
        told: Json = {"rfilename": self.name, "size": self.size, "blobId": self.blob_id}
        if self.lfs:
            told["lfs"] = {"sha256": self.sha256, "size": self.size, "pointerSize": 135}
        return told

    def as_tree_entry(self) -> Json:
        told: Json = {"type": "file", "oid": self.blob_id, "size": self.size, "path": self.name}
        if self.lfs:
            told["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 135}
        return told


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One commit: its files by name, and what the Hub derives from them. `sha` follows from the content."""

    sha: str
    files: Mapping[str, RepositoryFile] = field(repr=False)
    derived: Mapping[str, object] = field(repr=False)


@dataclass(slots=True)
class Repository:
    """A repository with its branches; where it is private or gated, `tokens` may read it."""

    repo_id: str
    private: bool = False
    gated: bool = False
    disabled: bool = False
    tokens: set[str] = field(default_factory=set, repr=False)
    branches: dict[str, Snapshot] = field(default_factory=dict)

    def snapshot(self, revision: str) -> Snapshot | None:
        by_sha = (snapshot for snapshot in self.branches.values() if snapshot.sha == revision)
        return self.branches.get(revision) or next(by_sha, None)

    def as_model(self, snapshot: Snapshot, *, blobs: bool) -> Json:
        return {
            "_id": hashlib.sha1(self.repo_id.encode(), usedforsecurity=False).hexdigest()[:24],
            "id": self.repo_id,
            "modelId": self.repo_id,
            "author": self.repo_id.partition("/")[0],
            "sha": snapshot.sha,
            "private": self.private,
            "gated": "manual" if self.gated else False,
            "disabled": self.disabled,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "downloads": 0,
            "likes": 0,
            "usedStorage": sum(file.size for file in snapshot.files.values()),
            "siblings": [file.as_sibling(blobs=blobs) for file in snapshot.files.values()],
            **snapshot.derived,
        }


def read_folder(folder: Path) -> Snapshot:
    """Reads all of a folder (it blocks, and hashes every file); hidden files and folders are left out."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    files = {file.name: file for file in _files(folder)}
    content = "".join(f"{file.name} {file.blob_id}\n" for file in files.values())
    sha = hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()
    return Snapshot(sha, files, _derived(folder, files))


def _files(folder: Path) -> Iterable[RepositoryFile]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            yield _file("/".join(parts), path)


def _file(name: str, path: Path) -> RepositoryFile:
    size = path.stat().st_size
    blob = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    sha256 = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1024**2):
            blob.update(chunk)
            sha256.update(chunk)
    lfs = size > _LFS_BYTES or name.endswith(_LFS_SUFFIXES)
    return RepositoryFile(name, path, size, blob.hexdigest(), sha256.hexdigest(), lfs)


def _derived(folder: Path, files: Mapping[str, RepositoryFile]) -> Json:
    card = _card(folder)
    config = _json(folder / "config.json")
    library = card.get("library_name") or _library(files, config)
    task = card.get("pipeline_tag") or _task(library, config)
    shown = ("architectures", "model_type", "quantization_config")
    derived: Json = {
        "cardData": card,
        "tags": [tag for tag in (library, task) if isinstance(tag, str)],
        "config": {key: config[key] for key in shown if key in config},
    }
    for key, value in {
        "library_name": library,
        "pipeline_tag": task,
        "safetensors": _safetensors(folder, files),
    }.items():
        if value is not None:
            derived[key] = value
    return derived


def _card(folder: Path) -> Json:
    readme = folder / "README.md"
    return dict(metadata_load(readme) or {}) if readme.is_file() else {}


def _json(path: Path) -> Json:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _library(files: Mapping[str, RepositoryFile], config: Json) -> str | None:
    if "model_index.json" in files:
        return "diffusers"
    if "modules.json" in files:
        return "sentence-transformers"
    if config.get("architectures"):
        return "transformers"
    suffixes = {PurePosixPath(name).suffix for name in files}
    return next((library for library in ("gguf", "onnx") if f".{library}" in suffixes), None)


def _task(library: object, config: Json) -> str | None:
    if library == "sentence-transformers":
        return "sentence-similarity"
    if library == "diffusers":
        return "text-to-image"
    architectures = config.get("architectures")
    name = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    return next((task for ending, task in _TASKS.items() if name.endswith(ending)), None)


def _safetensors(folder: Path, files: Mapping[str, RepositoryFile]) -> Json | None:
    """Parameters by dtype, counted over the safetensors in the root."""
    parameters: dict[str, int] = {}
    for name in files:
        if name.endswith(".safetensors") and "/" not in name:
            try:
                counted = parse_local_safetensors_file_metadata(folder / name).parameter_count
            except _NOT_SAFETENSORS:
                return None
            for dtype, count in counted.items():
                parameters[dtype] = parameters.get(dtype, 0) + count
    return {"parameters": parameters, "total": sum(parameters.values())} if parameters else None
