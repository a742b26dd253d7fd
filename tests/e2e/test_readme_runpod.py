"""The README's RunPod block, as it stands, against a RunPod on loopback whose workers are simulated."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moorage_runpod.testing import KEY
from tests.e2e.runpod.conftest import write_pipeline

from .conftest import CLI, started

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = "stabilityai/sd-turbo"


@pytest.fixture
def service(environ: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user in whose terminal the service was started."""
    pipeline = write_pipeline(tmp_path / "painter")
    hub_command = [sys.executable, "-m", "moorage.testing.hub", "--repo", f"{MODEL}={pipeline}"]
    fake_command = [sys.executable, "-m", "moorage_runpod.testing"]
    with (
        started(hub_command, environ, tmp_path / "hub.log") as hub,
        started(fake_command, environ, tmp_path / "runpod.log") as runpod,
    ):
        told = {
            **environ,
            "MOORAGE_HUB_URL": hub["url"],
            "MOORAGE_RUNPOD_API_URL": runpod["api_url"],
            "MOORAGE_LOADING_LOOK_SECONDS": "0.1",
        }
        with started([*CLI, "serve", "--port", "0", "--json"], told, tmp_path / "service.log"):
            yield told


def test_the_runpod_block_runs(service: dict[str, str], tmp_path: Path) -> None:
    (block,) = re.findall(r"^```bash run on runpod\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "runpod-key.txt").write_text(f"{KEY}\n")
    binaries = str(Path(sys.executable).parent)
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=tmp_path,
        env={**service, "PATH": f"{binaries}:{service['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "runpod" in ended.stdout  # gpus
    assert "A harbour at dawn." in ended.stdout  # the simulated worker echoes
    assert "measured here" in ended.stdout  # cost
    assert "deleted" in ended.stdout
    assert KEY not in ended.stdout + ended.stderr
