"""The cluster as a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes_asyncio import client, config

import moorage_kubernetes


async def spawn(*arguments: str) -> Process:
    root = Path(moorage_kubernetes.__file__).parents[1]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "moorage_kubernetes.testing", *arguments),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


@pytest.fixture
async def program() -> AsyncIterator[Process]:
    process = await spawn(
        "--node", "gpu-1:gpus=2,memory=32,nvidia.com/gpu.product=NVIDIA-L4", "--without", "keda"
    )
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


async def test_it_serves_until_it_is_told_to_end(program: Process) -> None:
    assert program.stdout is not None
    told = json.loads(await program.stdout.readline())
    kubeconfig = Path(told["kubeconfig"])
    mode = (await asyncio.to_thread(kubeconfig.stat)).st_mode
    assert mode & 0o077 == 0
    async with await config.new_client_from_config(str(kubeconfig)) as api:
        [node] = (await client.CoreV1Api(api).list_node()).items
        assert node.metadata.labels["nvidia.com/gpu.product"] == "NVIDIA-L4"
        assert (node.status.allocatable["nvidia.com/gpu"], node.status.allocatable["memory"]) == (
            "2",
            "32768Mi",
        )
        groups = [group.name for group in (await client.ApisApi(api).get_api_versions()).groups]
        assert "keda.sh" not in groups
    program.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(program.wait(), 20) == 0
    assert not await asyncio.to_thread(kubeconfig.exists)


async def test_a_node_that_is_none() -> None:
    process = await spawn("--node", "gpu-1:many")
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"--node gpu-1:many: must be NAME:KEY=VALUE" in errors
