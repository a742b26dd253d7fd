"""An engine that works in steps, as one that draws pictures does, and that a test holds and lets go."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from moorage_worker.engines.base import QUIET, Array, Run, Signature
from moorage_worker.errors import Cancelled
from moorage_worker.json_types import Json, JsonObject
from moorage_worker.readiness import LoadedModel

STEP_SECONDS = 0.005


class SteppingEngine:
    """Answers with what it was asked, or with `answer` where that is set, once `let_go` is."""

    task = "tensors"
    signature = Signature((), ())

    def __init__(self) -> None:
        self.asked: list[Json] = []
        self.answer: object = None
        self.failure: Exception | None = None
        self.started = threading.Event()
        self.let_go = threading.Event()
        self.stopped = threading.Event()

    def infer(self, inputs: Json, parameters: JsonObject, run: Run = QUIET) -> object:
        self.asked.append(inputs)
        self.started.set()
        run.progress(0.25, "step 1 of 4")
        while not self.let_go.wait(STEP_SECONDS):
            if run.cancelled:
                self.stopped.set()
                raise Cancelled
        if self.failure is not None:
            raise self.failure
        return {"inputs": inputs, "parameters": dict(parameters)} if self.answer is None else self.answer

    def infer_tensors(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if self.failure is not None:
            raise self.failure
        return {}

    def warm_up(self) -> None:
        """Nothing is cold here."""


def loaded(engine: SteppingEngine) -> LoadedModel:
    return LoadedModel(engine, "stepping", "v1", load_seconds=1.5, from_cache=True)
