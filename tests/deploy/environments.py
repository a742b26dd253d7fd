"""Whether the service would take an environment: all its names known, all its values as they must be."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

from moorage.settings import Settings

_ROOT = Path(__file__).parents[2]


def known_names() -> set[str]:
    """Of all settings that are documented: in .env.example, and in the table of a provider."""
    example = (_ROOT / ".env.example").read_text(encoding="utf-8")
    tables = "".join(path.read_text(encoding="utf-8") for path in _ROOT.glob("providers/*/README.md"))
    named = re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)
    return {*named, *re.findall(r"^\| `(MOORAGE_[A-Z_]+)` \|", tables, re.MULTILINE)}


def settings_of(environ: Mapping[str, str]) -> Settings:
    """As a process with this environment, and nothing else, reads it. Raises ValidationError."""
    with patch.dict(os.environ, environ, clear=True):
        return Settings()
