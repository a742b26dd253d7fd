"""What an engine is told beside the model, on its own so that the list of engines and the engines need not
import each other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The task (None: find out), and how many threads the engine may use."""

    task: str | None
    threads: int
