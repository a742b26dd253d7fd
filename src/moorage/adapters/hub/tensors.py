"""Sums what safetensors headers say into bytes by dtype.

Bytes come from the offsets, not from shapes times dtype: packed quantisation (GPTQ, AWQ in I32; bitsandbytes,
NVFP4, MXFP4 in U8) makes the counts lie, and the offsets never do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Public, but loaded lazily in a way that mypy does not see as an export.
from huggingface_hub.utils import SafetensorsFileMetadata, TensorInfo  # type: ignore[attr-defined]

from moorage.domain.model import SizedItem
from moorage.errors import ModelUnreadable

_PACKED = frozenset({"I32", "I8", "U8"})


@dataclass(frozen=True, slots=True)
class Header:
    """One file's tensors by dtype: {dtype: (tensors, bytes)}."""

    tensors: Mapping[str, tuple[int, int]]


def header_of(metadata: SafetensorsFileMetadata, name: str, file_bytes: int | None) -> Header:
    """Sums one header. Raises ModelUnreadable when it contradicts itself or the size of its file."""
    sums: dict[str, tuple[int, int]] = {}
    for tensor, info in metadata.tensors.items():
        size = _size_of(info, file_bytes)
        if size is None:
            raise ModelUnreadable(
                f"The header of {name} places tensor {tensor[:80]!r} outside the file.",
                advice="Check the upload: the file is cut off or damaged.",
            )
        count, sized = sums.get(info.dtype, (0, 0))
        sums[info.dtype] = (count + 1, sized + size)
    return Header(sums)


def _size_of(info: TensorInfo, file_bytes: int | None) -> int | None:
    """Bytes of a tensor; None when its offsets make no sense. The library checks no types."""
    match info.dtype, info.data_offsets:
        case str(), (int() as begin, int() as end) if 0 <= begin <= end:
            return end - begin if file_bytes is None or end <= file_bytes else None
    return None


def items_of(headers: Iterable[Header], label: str, where: str) -> tuple[SizedItem, ...]:
    """One item per dtype over all files of a part, the largest first."""
    sums: dict[str, tuple[int, int]] = {}
    for header in headers:
        for dtype, (count, size) in header.tensors.items():
            counted, sized = sums.get(dtype, (0, 0))
            sums[dtype] = (counted + count, sized + size)
    largest_first = sorted(sums.items(), key=lambda pair: (-pair[1][1], pair[0]))
    return tuple(
        SizedItem(
            f"{label} {dtype}", size, f"{count} tensors of {where}, bytes by the offsets of their headers"
        )
        for dtype, (count, size) in largest_first
    )


def main_dtype(items: Iterable[SizedItem], quantisation: str | None) -> str | None:
    """The dtype of most bytes; for packed weights the quantisation, as the dtype is only a box."""
    by_dtype: dict[str, int] = {}
    for item in items:
        dtype = item.name.rsplit(" ", 1)[-1]
        by_dtype[dtype] = by_dtype.get(dtype, 0) + item.bytes
    main = max(by_dtype, key=lambda dtype: by_dtype[dtype], default=None)
    return quantisation if main in _PACKED and quantisation else main


def quantisation_of(config: Mapping[str, object]) -> str | None:
    """What `quantization_config` names: "GPTQ", "AWQ", "MXFP4", "FP4" for NVFP4, …; None for none."""
    quantised = config.get("quantization_config")
    if not isinstance(quantised, Mapping):
        return None
    said = " ".join(str(quantised.get(key, "")) for key in ("quant_algo", "format", "quant_method")).upper()
    if "NVFP4" in said:
        return "FP4"
    method = quantised.get("quant_method")
    return method.upper()[:32] if isinstance(method, str) else None
