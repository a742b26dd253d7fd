"""Programs that development dependencies bring: the real kubectl, hadolint, check-jsonschema."""

from __future__ import annotations

import sys
from pathlib import Path


def program(name: str) -> str:
    """Beside the interpreter of the tests, whatever PATH says."""
    return str(Path(sys.executable).with_name(name))
