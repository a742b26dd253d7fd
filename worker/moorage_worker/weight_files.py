"""Which weight files of a torch model to read: a repository may hold the same weights many times over.

Names are those that the Hugging Face libraries write: `model.safetensors`, the variant
`model.fp16.safetensors`, shards `model.fp16-00001-of-00002.safetensors` and their index
`model.safetensors.index.fp16.json`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath

_STEM = r"(?:diffusion_pytorch_model|pytorch_model|model)"
_NAME = re.compile(
    rf"{_STEM}(?:\.(?P<before>[a-z0-9_]+))?(?:-\d{{5}}-of-\d{{5}})?(?:\.(?P<after>[a-z0-9_]+))?"
    r"\.(?P<format>safetensors|bin)"
)
_INDEX = re.compile(rf"{_STEM}\.(?P<format>safetensors|bin)\.index(?:\.(?P<variant>[a-z0-9_]+))?\.json")
_SAFE = "safetensors"
_BY_DTYPE = {"float16": "fp16", "F16": "fp16", "bfloat16": "bf16", "BF16": "bf16"}


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of a set of weights. `variant` is None for the set without a name."""

    path: str
    folder: str
    format: str
    variant: str | None


def read_weight_file(path: str) -> WeightFile | None:
    """What a path says of itself; None when it is no file of weights, or one under a name of its own."""
    split = PurePosixPath(path)
    if found := _NAME.fullmatch(split.name):
        return WeightFile(path, str(split.parent), found["format"], found["before"] or found["after"])
    if found := _INDEX.fullmatch(split.name):
        return WeightFile(path, str(split.parent), found["format"], found["variant"])
    return None


def one_set(paths: Collection[str], variant: str | None) -> set[str]:
    """The files of one set of weights for each folder.

    The asked variant where a folder has it, else the set without a name, else whatever variant there is;
    of that safetensors, else pickles.
    """
    by_folder: dict[str, list[WeightFile]] = {}
    for file in map(read_weight_file, paths):
        if file is not None:
            by_folder.setdefault(file.folder, []).append(file)
    return {file.path for files in by_folder.values() for file in _one_set_of(files, variant)}


def _one_set_of(files: list[WeightFile], wanted: str | None) -> list[WeightFile]:
    variants = {file.variant for file in files}
    chosen = next((v for v in (wanted, None) if v in variants), None)
    if chosen not in variants:
        chosen = min(v for v in variants if v is not None)
    ours = [file for file in files if file.variant == chosen]
    form = _SAFE if any(file.format == _SAFE for file in ours) else ours[0].format
    return [file for file in ours if file.format == form]


def choose_variant(paths: Collection[str], asked: str | None, dtype: str | None = None) -> str | None:
    """The variant to read, and to tell the library.

    The asked one where the model has it; with none asked, the one saved in `dtype` (a name of LoadOptions)
    where each folder with weights has it, as it is half the bytes for the same numbers; else the one that is
    the only set of some folder, as in a copy that was made of one variant; else None.
    """
    files = [file for file in map(read_weight_file, paths) if file is not None]
    if asked is not None and any(file.variant == asked for file in files):
        return asked
    saved = _BY_DTYPE.get(dtype or "") if asked is None else None
    if saved is not None and files and {f.folder for f in files} == _folders_with(saved, files):
        return saved
    plain = _folders_with(None, files)
    return min((f.variant for f in files if f.variant is not None and f.folder not in plain), default=None)


def _folders_with(variant: str | None, files: Collection[WeightFile]) -> set[str]:
    return {file.folder for file in files if file.variant == variant}
