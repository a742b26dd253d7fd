"""An independent client: kubectl itself, where it is installed."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from moorage_kubernetes.testing import StandInCluster

from .asking import deployment

Run = Callable[..., Awaitable[str]]
pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@pytest.fixture
async def kubectl(cluster: StandInCluster, tmp_path: Path) -> Run:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(cluster.kubeconfig(client_certificate=True))

    async def run(*arguments: str, body: object = None) -> str:
        process = await asyncio.create_subprocess_exec(
            *("kubectl", "--kubeconfig", str(kubeconfig), "--cache-dir", str(tmp_path / "cache"), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate(json.dumps(body).encode())
        assert process.returncode == 0, errors.decode()
        return output.decode()

    return run


async def test_the_way_of_a_deployment(kubectl: Run) -> None:
    apply = ("apply", "--server-side", "--validate=false", "-f", "-")
    assert "serverside-applied" in await kubectl(*apply, body=deployment(replicas=2))
    assert "successfully rolled out" in await kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    await kubectl("set", "image", "deploy/web", "server=acme/web:2")
    await kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    await kubectl("rollout", "undo", "deploy/web")
    await kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    found = json.loads(await kubectl("get", "deploy", "web", "-o", "json"))
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "acme/web:1"
    assert "MinimumReplicasAvailable" in await kubectl("describe", "deploy", "web")
    assert "deleted" in await kubectl("delete", "deploy", "web", "--timeout=20s")
