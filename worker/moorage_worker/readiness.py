"""Whether the model answers yet, and if not, how far it is: the one piece of state that the faces share."""

from __future__ import annotations

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
    """Written by the loading thread, read by the event loop; each write is one assignment."""

    def __init__(self) -> None:
        self.stage = Stage.DOWNLOADING
        self.model: LoadedModel | None = None

    def require(self) -> LoadedModel:
        """The loaded model. Raises NotReady with the stage."""
        if self.model is None:
            raise NotReady(self.stage.value)
        return self.model
