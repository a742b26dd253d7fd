"""What an engine is told beside the model, on its own so that the list of engines and the engines need not
import each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# By the names of torch and by those that safetensors writes, which model specs use.
TORCH_NAMES = {
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}
DTYPES = tuple(TORCH_NAMES)


def _unwatched(done: float) -> None:
    """Takes the progress of a load that nobody watches."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The task (None: find out), and how many threads the engine may use.

    `dtype`, one of DTYPES, is what the weights are computed in; None: the engine decides by device.
    `variant` is the set of weight files to read (`fp16`: `model.fp16.safetensors`); None: the one of `dtype`
    where the model has it, else the unnamed (see `weight_files.choose_variant`).
    `progress` is told how much of the model is loaded, from 0 to 1, from the loading thread.
    """

    task: str | None
    threads: int
    dtype: str | None = None
    variant: str | None = None
    progress: Callable[[float], None] = _unwatched
