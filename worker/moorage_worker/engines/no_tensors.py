"""The part of an engine without tensors: nobody asks for pictures, speech or chat as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from moorage_worker.engines.base import Array, Signature
from moorage_worker.errors import BadInput


class NoTensors:
    """Base of the tasks that are served by `POST /infer` only."""

    task: str
    signature = Signature((), ())

    def infer_tensors(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> NoReturn:
        raise BadInput("inputs", "unsupported", f"task {self.task} takes no tensors; use POST /infer")
