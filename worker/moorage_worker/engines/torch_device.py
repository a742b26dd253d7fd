"""Where a torch model runs, and in which precision: decided here on plain values, looked up at the edge."""

from __future__ import annotations

from dataclasses import dataclass

from moorage_worker.engines.load_options import DTYPES, TORCH_NAMES
from moorage_worker.errors import LoadFailed

CPU, CUDA = "cpu", "cuda"
_BY_VARIANT = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True, slots=True)
class Device:
    """`kind` is CPU or CUDA. `bfloat16`: whether its hardware computes in it."""

    kind: str
    bfloat16: bool = False


def find_device() -> Device:
    """The GPU that this process sees first, else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return Device(CPU)
    # Ampere (8.0) is the first with bfloat16 in hardware; before, it is emulated and slow.
    return Device(CUDA, bfloat16=torch.cuda.get_device_capability() >= (8, 0))


def choose_dtype(asked: str | None, variant: str | None, device: Device) -> str:
    """The name in torch of what to compute in.

    On a CPU always float32: half precision is slow there or missing. On a GPU what is asked for, else what
    the weights were saved in, else half precision; bfloat16 becomes float16 where the GPU lacks it.
    Raises LoadFailed on a name that is none of DTYPES.
    """
    if asked is not None and asked not in DTYPES:
        raise LoadFailed(f"dtype {asked} is not known; use one of {', '.join(DTYPES)}")
    if device.kind == CPU:
        return "float32"
    wanted = TORCH_NAMES[asked] if asked else _BY_VARIANT.get(variant or "", "bfloat16")
    return "float16" if wanted == "bfloat16" and not device.bfloat16 else wanted
