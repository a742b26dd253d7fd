"""Whether the model answers yet, and if not, how far it is: the one piece of state that the faces share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from moorage_worker.engines.base import Engine
from moorage_worker.errors import NotReady


class Stage(StrEnum):
    """Where a model is on its way."""

    DOWNLOADING = "downloading"
    LOADING = "loading"
    WARMING = "warming"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that has answered its warm-up inference."""

    engine: Engine
    engine_name: str
    version: str
    load_seconds: float
    from_cache: bool = False


class Readiness:
    """Written by the loading thread, read by the event loop; each write is one assignment.

    `on_loading` hears of each stage and of the per cent in it, in the loading thread."""

    def __init__(self, on_loading: Callable[[Stage, float | None], None] | None = None) -> None:
        self._stage = Stage.DOWNLOADING
        self._on_loading = on_loading
        self.model: LoadedModel | None = None

    @property
    def stage(self) -> Stage:
        return self._stage

    @stage.setter
    def stage(self, stage: Stage) -> None:
        self._stage = stage
        if self._on_loading is not None:
            self._on_loading(stage, None)

    def progress(self, done: float, total: float = 1.0) -> None:
        """How far the present stage is."""
        if self._on_loading is not None and total > 0:
            self._on_loading(self._stage, round(100 * min(1.0, done / total), 1))

    def require(self) -> LoadedModel:
        """The loaded model. Raises NotReady with the stage."""
        if self.model is None:
            raise NotReady(self.stage.value)
        return self.model
