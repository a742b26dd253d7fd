"""A local provider whose workers are stubs, with proof at the end of each test that nothing is left."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

import moorage_managed
from moorage.domain.compute import Offer
from moorage.domain.deployment import Handle
from moorage.domain.model import HubModel
from moorage.domain.observation import Observation
from moorage.ports.provider import Provider, ProviderConfig, RevisionPlan
from moorage.testing.provider_contract import ProviderContract, need, until_absent
from moorage_managed.local import LocalProvider
from moorage_managed.processes import MARK_VARIABLE, ProcessId

STUB = Path(__file__).with_name("stub_worker.py")
MEMORY = 10**7


@dataclass
class House:
    """Makes providers on one data folder, as one service process after the other would hold them."""

    data_dir: Path
    environ: dict[str, str]
    providers: list[Provider] = field(default_factory=list)

    def provider(self, **settings: str) -> LocalProvider:
        config = ProviderConfig(self.data_dir, {**self.environ, **settings}, "http://127.0.0.1:9")
        made = moorage_managed.provider(config)
        assert isinstance(made, LocalProvider)
        self.providers.append(made)
        return made

    async def offer(self) -> Offer:
        return (await self.provider().offers(need(1), None))[0]

    async def plan(self, **env: str) -> RevisionPlan:
        return RevisionPlan(
            deployment_id="dep_x",
            organization_id="org_x",
            revision=1,
            source=HubModel("acme/model", "0" * 40),
            runtime="onnx",
            offer=await self.offer(),
            replicas=1,
            memory_bytes=MEMORY,
            env=env,
        )

    def left_over(self) -> list[str]:
        """Command lines of all processes that belong to an endpoint of this house, supervisors too."""
        mark = f"{MARK_VARIABLE}={self.data_dir}/".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and ProcessId.of(int(entry.name)) is not None:
                try:
                    command = (entry / "cmdline").read_bytes()
                    environ = (entry / "environ").read_bytes()
                except OSError:
                    continue
                if any(e.startswith(mark) for e in environ.split(b"\0")) or self._is_shim(command):
                    found.append(command.replace(b"\0", b" ").decode())
        return found

    def _is_shim(self, command: bytes) -> bool:
        return b"moorage_managed.shim" in command and f"{self.data_dir}/".encode() in command

    async def close(self) -> None:
        last = self.provider()
        for handle in [handle async for handle in last.owned(None)]:
            await until_absent(last, handle, None, 20)
        for provider in self.providers:
            await provider.aclose()
        assert self.left_over() == []
        assert [p.name for p in self.data_dir.iterdir() if not p.name.startswith(".")] == []
        assert list((self.data_dir / ".notify").iterdir()) == []
        assert list((self.data_dir / ".staging").iterdir()) == []


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    environ = {
        "MOORAGE_MANAGED_WORKER_COMMAND": f"{sys.executable} -S {STUB}",
        "MOORAGE_MANAGED_MEMORY_GB": "1",
        "MOORAGE_MANAGED_RESTART_SECONDS": "0.02",
        "MOORAGE_MANAGED_PROBE_SECONDS": "0.1",
        "MOORAGE_MANAGED_UNHEALTHY_SECONDS": "0.5",
        "MOORAGE_MANAGED_STOP_GRACE_SECONDS": "0.3",
    }
    house = House(tmp_path / "managed", environ)
    yield house
    await house.close()


@pytest.fixture
def name() -> str:
    return ProviderContract.new_name()


async def until(
    provider: Provider, name: str, holds: Callable[[Observation], bool], seconds: float = 10
) -> Observation:
    """Observes until it holds."""
    end = time.monotonic() + seconds
    while not holds(seen := await provider.observe(Handle("managed", name), None)):
        assert time.monotonic() < end, seen
        await asyncio.sleep(0.01)
    return seen


async def post(url: str, path: str, body: str = "") -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"{url}{path}", content=body)


async def worker_pid(url: str) -> int:
    return int((await post(url, "/infer")).json()["pid"])


__all__ = ["House", "post", "replace", "until", "worker_pid"]
