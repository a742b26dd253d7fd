"""The README's Kubernetes block, as it stands, against a cluster on loopback whose pods are simulated."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import CLI, started

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def service(environ: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user in whose terminal the service was started, beside a kubeconfig."""
    cluster_command = [sys.executable, "-m", "moorage_kubernetes.testing"]
    with started(cluster_command, environ, tmp_path / "cluster.log") as cluster:
        (tmp_path / "kubeconfig.yaml").write_text(Path(cluster["kubeconfig"]).read_text())
        told = {**environ, "MOORAGE_OUTBOUND_ALLOW": "127.0.0.1", "MOORAGE_LOADING_LOOK_SECONDS": "0.1"}
        with started([*CLI, "serve", "--port", "0", "--json"], told, tmp_path / "service.log"):
            yield told


def test_the_kubernetes_block_runs(service: dict[str, str], tmp_path: Path) -> None:
    (block,) = re.findall(r"^```bash run on kubernetes\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    binaries = str(Path(sys.executable).parent)
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=tmp_path,
        env={**service, "PATH": f"{binaries}:{service['PATH']}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "A harbour at dawn." in ended.stdout  # the simulated container echoes
    assert "deleted" in ended.stdout
