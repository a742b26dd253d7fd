"""Builds the profile of one repository at one commit out of what the Hub tells.

Reads as little as will do: the list of files with sizes, the config, and the headers of the weights that were
chosen. Weights themselves are never read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from huggingface_hub import ModelInfo

from moorage.adapters.hub import files
from moorage.adapters.hub.attention import attention_of, strings
from moorage.adapters.hub.failures import disabled
from moorage.adapters.hub.files import Part, Sizes
from moorage.adapters.hub.tensors import header_of, items_of, main_dtype, quantisation_of
from moorage.adapters.hub.wire import Wire
from moorage.domain.model import ModelProfile, SizedItem, WeightFormat, WeightSet
from moorage.errors import ModelUnreadable

Config = Mapping[str, object]

_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a repository may have before it is refused as absurd (bytes, counts)."""

    files: int = 20_000
    config_bytes: int = 4 * 1024**2
    index_bytes: int = 64 * 1024**2
    headers: int = 64  # files whose headers are read; of more, only the sizes


class Reader:
    """Reads one repository at the commit that `info` names."""

    def __init__(self, wire: Wire, info: ModelInfo, commit: str, token: str | None, limits: Limits) -> None:
        self._wire = wire
        self._info = info
        self._commit = commit
        self._token = token
        self._limits = limits
        self._sizes = sizes_of(info, limits)

    async def profile(self) -> ModelProfile:
        """Raises ModelUnreadable, or what huggingface_hub raises."""
        if self._info.disabled:
            raise disabled(self._info.id)
        if self._info.gated:
            await self._wire.check_access(self._info.id, self._token)
        config = await self._json("config.json", self._limits.config_bytes)
        pipeline = await self._json("model_index.json", self._limits.config_bytes)
        sets = await (self._pipeline_sets(pipeline) if pipeline else self._root_sets(config))
        class_name = pipeline.get("_class_name")
        return ModelProfile(
            repo_id=self._info.id,
            revision=self._commit,
            weights=sets,
            task=self._info.pipeline_tag,
            library=self._info.library_name or ("diffusers" if pipeline else None),
            architectures=strings(config.get("architectures")),
            pipeline_class=class_name if isinstance(class_name, str) else None,
            attention=attention_of(config),
        )

    async def _json(self, name: str, limit: int) -> Config:
        if name not in self._sizes:
            return {}
        return await self._wire.json_object(self._info.id, name, self._commit, self._token, limit)

    # -- sets ---------------------------------------------------------------------------------------------

    async def _root_sets(self, config: Config) -> tuple[WeightSet, ...]:
        """Every format that the repository holds, each counted by itself."""
        found: list[WeightSet] = []
        for format_ in (WeightFormat.SAFETENSORS, WeightFormat.PYTORCH):
            root = await self._part("", format_)
            if root is not None:
                modules = [await self._part(folder, format_) for folder in files.module_folders(self._sizes)]
                parts = [("weights", root), *((part.folder, part) for part in modules if part is not None)]
                found.append(await self._weight_set(parts, config))
        others = (files.onnx_part(self._sizes), files.gguf_part(self._sizes))
        return (
            *found,
            *(self._by_size([("weights", part)], part.dtype) for part in others if part is not None),
        )

    async def _pipeline_sets(self, pipeline: Config) -> tuple[WeightSet, ...]:
        """One set over all components: safetensors where a component has them, else PyTorch."""
        parts: list[tuple[str, Part]] = []
        for component in _components(pipeline):
            part = await self._part(component, WeightFormat.SAFETENSORS)
            part = part or await self._part(component, WeightFormat.PYTORCH)
            if part is not None:
                parts.append((component, part))
        return (await self._weight_set(parts, {}, diffusers=True),) if parts else ()

    async def _part(self, folder: str, format_: WeightFormat) -> Part | None:
        index = files.index_of(self._sizes, folder, format_)
        if index is not None:
            named = await self._json(index, self._limits.index_bytes)
            return files.indexed_part(named, index, self._sizes, format_)
        choose = files.safetensors_part if format_ is WeightFormat.SAFETENSORS else files.pytorch_part
        return choose(self._sizes, folder)

    async def _weight_set(
        self, parts: list[tuple[str, Part]], config: Config, *, diffusers: bool = False
    ) -> WeightSet:
        safe = [part for _, part in parts if part.format is WeightFormat.SAFETENSORS]
        if sum(len(part.files) for part in safe) > self._limits.headers or len(safe) < len(parts):
            return self._by_size(parts, self._told_dtype(config), diffusers=diffusers)
        items = [item for label, part in parts for item in await self._tensor_items(label, part)]
        dtype = main_dtype(items, quantisation_of(config))
        return WeightSet(WeightFormat.SAFETENSORS, tuple(items), dtype, diffusers)

    async def _tensor_items(self, label: str, part: Part) -> tuple[SizedItem, ...]:
        metadata = await asyncio.gather(
            *(
                self._wire.safetensors_header(self._info.id, name, self._commit, self._token)
                for name in part.files
            )
        )
        headers = [
            header_of(data, name, self._sizes[name]) for data, name in zip(metadata, part.files, strict=True)
        ]
        return items_of(headers, label, _where(part))

    def _by_size(
        self, parts: list[tuple[str, Part]], dtype: str | None, *, diffusers: bool = False
    ) -> WeightSet:
        items = tuple(
            SizedItem(label, sum(self._sizes[name] for name in part.files), f"size of {_where(part)}")
            for label, part in parts
        )
        formats = {part.format for _, part in parts}
        format_ = formats.pop() if len(formats) == 1 else WeightFormat.PYTORCH
        return WeightSet(format_, items, dtype, diffusers)

    def _told_dtype(self, config: Config) -> str | None:
        """The dtype where no header was read: the Hub's own count, else what the config says."""
        quantised = quantisation_of(config)
        if self._info.safetensors is not None:
            counts = self._info.safetensors.parameters
            return quantised or max(counts, key=lambda dtype: counts[dtype], default=None)
        return quantised or _DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")))


def sizes_of(info: ModelInfo, limits: Limits) -> Sizes:
    """The files of a repository with their sizes. Raises ModelUnreadable for an absurd number of them."""
    siblings = info.siblings or []
    if len(siblings) > limits.files:
        raise ModelUnreadable(
            f"{info.id} has {len(siblings)} files, more than {limits.files}.",
            advice="Use a repository that holds one model.",
        )
    return {sibling.rfilename: sibling.size or 0 for sibling in siblings}


def _components(pipeline: Config) -> Iterable[str]:
    """The folders that a `model_index.json` names: `"unet": ["diffusers", "UNet2DConditionModel"]`."""
    for name, value in pipeline.items():
        pair = strings(value)
        if not name.startswith("_") and "/" not in name and len(pair) == 2:
            yield name


def _where(part: Part) -> str:
    first = part.files[0]
    place = first if len(part.files) == 1 else f"{first} and {len(part.files) - 1} more files"
    return f"{place} ({part.note})" if part.note else place
