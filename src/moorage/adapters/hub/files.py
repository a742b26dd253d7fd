"""Chooses the weights among the files of a repository.

A repository may hold the same weights many times over: safetensors beside PyTorch, half precision beside
full, a consolidated file beside shards, ONNX exports, a dozen GGUF quantisations. Counting two sets as one
would double the estimate, so each set is found by the names that the libraries themselves look for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moorage.domain.model import WeightFormat
from moorage.errors import ModelUnreadable

Sizes = Mapping[str, int]  # file name in the repository → bytes

_GRAPHS = ("onnx/model.onnx", "model.onnx")  # what exporters write now, and what they wrote before
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?P<suffix>\.\w+)$")
_STEMS = {
    WeightFormat.SAFETENSORS: ("model", "diffusion_pytorch_model"),
    WeightFormat.PYTORCH: ("pytorch_model", "diffusion_pytorch_model"),
}
_SUFFIXES = {WeightFormat.SAFETENSORS: ".safetensors", WeightFormat.PYTORCH: ".bin"}
_VARIANTS = ("", ".fp16", ".bf16", ".fp32")  # the plain name is what a library loads unless told otherwise
_QUANTISATION = re.compile(r"(?:^|[-._])(I?Q\d\w*|BF16|F16|F32|MXFP4\w*)(?=[-.]|$)", re.IGNORECASE)
# The usual balance of size and quality first, then what is nearest to it, better before worse.
_QUANTISATIONS = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q5_K_S", "Q4_0", "Q5_0", "Q6_K", "Q8_0", "Q3_K_M", "F16")


@dataclass(frozen=True, slots=True)
class Part:
    """One complete file set: a whole model, or one component of a pipeline (`folder`, "" for the root)."""

    format: WeightFormat
    folder: str
    files: tuple[str, ...]
    note: str = ""
    dtype: str | None = None  # where the file name tells it


def safetensors_part(sizes: Sizes, folder: str = "") -> Part | None:
    """The safetensors of one folder, by the names that transformers and diffusers load."""
    part = _part(sizes, folder, WeightFormat.SAFETENSORS)
    if part is None and not folder:
        consolidated = sorted(f for f in sizes if re.fullmatch(r"consolidated([-.]\d+.*)?\.safetensors", f))
        if consolidated:
            return Part(WeightFormat.SAFETENSORS, "", tuple(consolidated), "consolidated files")
    return part


def pytorch_part(sizes: Sizes, folder: str = "") -> Part | None:
    """The pickled PyTorch weights of one folder."""
    return _part(sizes, folder, WeightFormat.PYTORCH)


def index_of(sizes: Sizes, folder: str, format_: WeightFormat) -> str | None:
    """The index that lists the shards of a folder; None where one file holds all, or there is none."""
    suffix = _SUFFIXES[format_]
    prefix = f"{folder}/" if folder else ""
    for stem in _STEMS[format_]:
        if f"{prefix}{stem}{suffix}" in sizes:
            return None
        if f"{prefix}{stem}{suffix}.index.json" in sizes:
            return f"{prefix}{stem}{suffix}.index.json"
    return None


def indexed_part(index: Mapping[str, object], name: str, sizes: Sizes, format_: WeightFormat) -> Part:
    """The shards that an index names. Raises ModelUnreadable when it is broken or names what is not there."""
    folder = _folder(name)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise ModelUnreadable(
            f"{name} has no weight_map.", advice="Upload the index that belongs to the weights."
        )
    shards = sorted({f"{folder}/{shard}" if folder else str(shard) for shard in weight_map.values()})
    missing = [shard for shard in shards if shard not in sizes]
    if missing:
        raise ModelUnreadable(
            f"The weights are incomplete: {name} names {missing[0]}, which is not there "
            f"({len(missing)} of {len(shards)} files are missing).",
            advice="Upload the missing files, or name a revision that has them all.",
        )
    return Part(format_, folder, tuple(shards))


def onnx_part(sizes: Sizes) -> Part | None:
    """The ONNX graph with the files of its external data. No quantised variants."""
    graph = next((name for name in _GRAPHS if name in sizes), None)
    if graph is None:
        return None
    beside = sorted(name for name in sizes if name.startswith((f"{graph}_data", f"{graph}.data")))
    return Part(WeightFormat.ONNX, "", (graph, *beside))


def gguf_part(sizes: Sizes) -> Part | None:
    """One quantisation of those that a repository offers: the usual, else a near one, else the smallest."""
    sets: dict[str, list[str]] = {}
    for name in sorted(sizes):
        if name.endswith(".gguf") and not name.rsplit("/", 1)[-1].startswith("mmproj"):
            shard = _SHARD.match(name)
            sets.setdefault(shard["stem"] if shard else name.removesuffix(".gguf"), []).append(name)
    if not sets:
        return None
    for names in sets.values():
        _require_all_shards(names)
    known = {stem: quantisation(stem) for stem in sets}
    wished = (stem for wish in _QUANTISATIONS for stem in sets if known[stem] == wish)
    smallest = min(sets, key=lambda stem: sum(sizes[name] for name in sets[stem]))
    chosen = next(wished, smallest)
    others = len(sets) - 1
    note = (
        f"the quantisation {known[chosen] or chosen} was chosen, {others} others lie beside it"
        if others
        else ""
    )
    return Part(WeightFormat.GGUF, "", tuple(sets[chosen]), note, known[chosen])


def quantisation(stem: str) -> str | None:
    """The quantisation that a GGUF file name tells: `mistral-7b.Q4_K_M` → `Q4_K_M`."""
    found = _QUANTISATION.findall(stem.rsplit("/", 1)[-1])
    return str(found[-1]).upper() if found else None


def module_folders(sizes: Sizes) -> tuple[str, ...]:
    """Folders of sentence-transformers modules (`2_Dense`) that may hold weights of their own."""
    return tuple(sorted({name.split("/", 1)[0] for name in sizes if re.match(r"\d+_\w+/", name)}))


def _part(sizes: Sizes, folder: str, format_: WeightFormat) -> Part | None:
    suffix = _SUFFIXES[format_]
    here = [name for name in sizes if _folder(name) == folder]
    for variant in _VARIANTS:
        for stem in _STEMS[format_]:
            base = f"{folder}/{stem}" if folder else stem
            found = _named(here, base, variant, suffix)
            if found:
                note = f"variant {variant[1:]}" if variant else ""
                return Part(format_, folder, found, note)
    return None


def _named(here: Iterable[str], base: str, variant: str, suffix: str) -> tuple[str, ...]:
    single = f"{base}{variant}{suffix}"
    names = set(here)
    if single in names:
        return (single,)
    # The variant of a shard stands before or after its number, by the age of the library that wrote it.
    pattern = re.compile(
        rf"{re.escape(base)}(?:{re.escape(variant)}-\d+-of-\d+|-\d+-of-\d+{re.escape(variant)}){re.escape(suffix)}"
    )
    shards = sorted(name for name in names if pattern.fullmatch(name))
    if shards:
        _require_all_shards([name.replace(f"{variant}{suffix}", suffix) for name in shards])
    return tuple(shards)


def _require_all_shards(names: list[str]) -> None:
    """Raises ModelUnreadable when a file that says "of N" has not N siblings."""
    shard = _SHARD.match(names[0])
    if shard is not None and len(names) != int(shard["count"]):
        raise ModelUnreadable(
            f"The weights are incomplete: of {shard['stem']} there are {len(names)} "
            f"of {int(shard['count'])} files.",
            advice="Upload the missing files, or name a revision that has them all.",
        )


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
