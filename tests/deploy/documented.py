"""Commands of docs/deploying.md, run as they stand: a fence ```bash run NAME is a script of that name."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from dotenv import dotenv_values

DOCUMENT = Path(__file__).parents[2] / "docs" / "deploying.md"
ENV_FILE = {"POSTGRES_PASSWORD", "MOORAGE_SECRET_KEYS", "MOORAGE_INSTALLATION", "MOORAGE_BOOTSTRAP_PASSWORD"}


def script(name: str) -> str:
    """Raises ValueError where there is not exactly one of that name."""
    text = DOCUMENT.read_text(encoding="utf-8")
    [found] = re.findall(rf"^```bash run {name}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(found)


def run(name: str, folder: Path, path: Path | None = None) -> str:
    """What it prints. `path` has programs that stand in for others. Raises AssertionError where it fails."""
    where = os.environ["PATH"] if path is None else f"{path}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script(name)],
        cwd=folder,
        env={**os.environ, "PATH": where},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def env_file(folder: Path) -> dict[str, str]:
    """The .env that the command for Compose writes."""
    run("env", folder)
    file = folder / ".env"
    assert file.stat().st_mode & 0o077 == 0, "its owner's alone"
    return {name: value for name, value in dotenv_values(file).items() if value}
