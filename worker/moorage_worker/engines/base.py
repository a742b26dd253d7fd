"""What the worker needs from an engine, whatever runtime is behind it.

Kept free of numpy and of any runtime, so that the HTTP server is up before those are imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from moorage_worker.json_types import Json, JsonObject

if TYPE_CHECKING:
    import numpy as np

    # The element type is data: a graph may want any, and checks it when it runs.
    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
else:
    Array = Any

ANY_SIZE = -1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: Open Inference Protocol datatype, and shape with -1 for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def shape_text(self) -> str:
        """`[N,64]`: the first free size is N, the others are `*`."""
        sizes = [str(size) if size != ANY_SIZE else "*" for size in self.shape]
        if sizes and self.shape[0] == ANY_SIZE:
            sizes[0] = "N"
        return f"[{','.join(sizes)}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors of a model, for `/metadata` and for the Open Inference Protocol."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Run(Protocol):
    """One inference, as the side that started it sees it: how far it is, and whether it is still wanted."""

    def progress(self, done: float, what: str) -> None:
        """`done` from 0 to 1, never falling; `what` is done now, in a few words. Called from any thread and
        often, so it must return at once and not raise."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more. Read from any thread, often."""
        ...


class _Quiet:
    """A run that nobody watches and nobody can cancel."""

    cancelled = False

    def progress(self, done: float, what: str) -> None:
        pass


QUIET: Run = _Quiet()


class Engine(Protocol):
    """One loaded model. Every method blocks and may be called from several threads at once."""

    @property
    def task(self) -> str: ...

    @property
    def signature(self) -> Signature: ...

    def infer(self, inputs: Json, parameters: JsonObject, run: Run = QUIET) -> object:
        """Answer a task-level request. The result is JSON that may also hold numpy arrays where it is
        numbers, and `Media` where it is a file.

        Raises BadInput when the caller broke a rule, Cancelled when it saw `run.cancelled` (looked at between
        steps, where an engine has steps); any other exception is an engine failure.
        """
        ...

    def infer_tensors(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run the model on named tensors, already checked against `signature`; empty `outputs` means all."""
        ...

    def warm_up(self) -> None:
        """Run one real inference, so that the first caller does not pay for lazy work. Raises on failure."""
        ...
