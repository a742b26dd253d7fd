"""Reads the small files of a model on disk, and turns their mistakes into causes a user can act on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from moorage_worker.errors import LoadFailed
from moorage_worker.json_types import Json


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model's files in the layout they have in a Hub repository."""

    root: Path

    def files(self) -> set[str]:
        """Every file below the root, as paths with `/`."""
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()}

    def has(self, name: str) -> bool:
        return (self.root / name).is_file()

    def path(self, name: str) -> Path:
        return self.root / name

    def json(self, name: str) -> Json:
        """The parsed file, None when it is not there. Raises LoadFailed when it is not JSON."""
        try:
            text = (self.root / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise LoadFailed(f"{name} cannot be read: {error}") from error
        try:
            value: Json = json.loads(text)
        except ValueError as error:
            raise LoadFailed(f"{name} is not valid JSON: {error}") from error
        return value

    def json_object(self, name: str) -> dict[str, Json] | None:
        """The parsed file, which must hold an object; None when it is not there."""
        value = self.json(name)
        if value is not None and not isinstance(value, dict):
            raise LoadFailed(f"{name} must hold a JSON object")
        return value
