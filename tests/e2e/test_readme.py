"""The README's commands do what it says: every block marked `bash run`, in order, against a real service.

The Hub is not reached in tests. Its stand-in serves the sample model under the README's id, and the README's
text is replaced by an image, since that is what the sample model takes. Nothing else is changed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Installation

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TEXT, IMAGE = '"A most agreeable harbour."', "@examples/digits/samples/8.png"


@pytest.fixture(scope="module")
def hub_models() -> tuple[str, ...]:
    return (MODEL,)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_the_blocks_run(installation: Installation) -> None:
    blocks = re.findall(r"^```bash run\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    script = "".join(blocks)
    assert len(blocks) == 2
    assert MODEL in script
    assert TEXT in script
    binaries = str(Path(sys.executable).parent)
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(TEXT, IMAGE)],
        cwd=ROOT,
        env={
            **installation.environ,
            "PATH": f"{binaries}:{installation.environ['PATH']}",
            "MOORAGE_URL": installation.url,
        },
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "268.5 MB" in ended.stdout  # plan
    assert re.search(r"^8 +[01]\.\d{4}", ended.stdout, flags=re.MULTILINE)  # infer
    assert '"name":"mine"' in ended.stdout  # curl
    assert installation.replicas() == []


def test_what_it_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) >= 8
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`|\s)make ([a-z]+)", README, flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_the_settings_example_is_a_file_that_a_shell_reads() -> None:
    ended = subprocess.run(
        ["bash", "-euc", f"set -a; . {ROOT}/.env.example"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
