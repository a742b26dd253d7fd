"""What this provider knows of the worker program without starting it."""

from __future__ import annotations

import moorage_worker
from moorage_worker.model_layout import TASKS

__all__ = ["TASKS", "engines"]


def engines() -> dict[str, str | None]:
    """Engine by name: None when it can be used here, else what to install."""
    return moorage_worker.available_engines()
