"""docs/deploying.md: what it names is there, and what it tells one to type is at least a script."""

from __future__ import annotations

import re
import subprocess

import pytest

from .documented import DOCUMENT
from .environments import known_names

TEXT = DOCUMENT.read_text(encoding="utf-8")
SCRIPTS = re.findall(r"^```bash[^\n]*\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.split("\n")[0][:40])
def test_every_command_is_one_that_bash_can_read(script: str) -> None:
    read = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert read.returncode == 0, read.stderr


def test_every_setting_that_it_names_is_one() -> None:
    named = set(re.findall(r"MOORAGE_[A-Z_]+[A-Z]", TEXT))
    assert len(named) > 8
    assert named - known_names() == set()


def test_every_file_that_it_names_is_there() -> None:
    root = DOCUMENT.parents[1]
    named = set(re.findall(r"`?((?:deploy|tests|docs)/[A-Za-z0-9./-]*[A-Za-z0-9])", TEXT))
    named |= {f"deploy/kustomize/{name}" for name in re.findall(r"`(components/[a-z-]+)`", TEXT)}
    named |= {f"docs/{name}" for name in re.findall(r"\]\(([a-z-]+\.md)\)", TEXT)}
    assert len(named) > 6
    assert {name for name in named if not (root / name).exists()} == set()
