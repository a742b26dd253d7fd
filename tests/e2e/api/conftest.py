"""The whole service, on a real socket, with a Hub and a provider whose faults can be switched on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON of the API

import httpx
import pytest
import uvicorn

from moorage.domain.identity import Organization, Role, User
from moorage.main import Service, listening, running
from moorage.ports import Insert
from moorage.settings import Settings
from moorage.testing.hub import HubStandIn
from moorage.testing.provider import InProcessCompute, InProcessProvider, cpu_offer

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
PASSWORD = "a long enough password"
MODEL = "moorage/digits"


@dataclass
class Api:
    """A running service, and its first owner."""

    service: Service
    url: str
    hub: HubStandIn
    compute: InProcessCompute
    owner: httpx.AsyncClient

    async def as_role(self, role: Role, organization: str | None = None) -> httpx.AsyncClient:
        """A client with a fresh API key of that role, in the owner's organization or another one's."""
        owner = self.owner if organization is None else await self._owner_of(organization)
        answer = await owner.post("/v1/keys", json={"name": f"test-{role}", "role": role.value})
        assert answer.status_code == 201, answer.text
        if owner is not self.owner:
            await owner.aclose()
        return self.client(f"Bearer {answer.json()['key']}")

    def client(self, authorization: str | None) -> httpx.AsyncClient:
        headers = {} if authorization is None else {"authorization": authorization}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20)

    async def deploy(self, **body: Any) -> str:
        answer = await self.owner.post("/v1/deployments", json={"hf_model_id": MODEL, **body})
        assert answer.status_code == 202, answer.text
        id_: str = answer.json()["deployment_id"]
        return id_

    async def until(self, deployment_id: str, *statuses: str, seconds: float = 10) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            while True:
                found: dict[str, Any] = (await self.owner.get(f"/v1/deployments/{deployment_id}")).json()
                if found["status"] in statuses:
                    return found
                await asyncio.sleep(0.02)

    async def _owner_of(self, organization: str) -> httpx.AsyncClient:
        """A second organization's owner; there is no route that makes one."""
        store, ids = self.service.store, self.service.new_id
        now = self.service.clock.now()
        username = f"owner-of-{organization}"
        if await store.user_named(username) is None:
            mine = await store.user_named("owner")
            assert mine is not None
            org = Organization(ids("org"), organization, now)
            user = User(ids("usr"), org.id, username, mine.password_hash, Role.OWNER, now)
            await store.commit([Insert(org), Insert(user)])
        return self.client(await sign_in(self.url, username))


async def sign_in(url: str, username: str) -> str:
    async with httpx.AsyncClient(base_url=url) as http:
        answer = await http.post("/auth/token", json={"username": username, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        return f"Bearer {answer.json()['token']}"


@pytest.fixture
async def hub() -> AsyncIterator[HubStandIn]:
    async with HubStandIn() as found:
        await found.add_repo(MODEL, DIGITS)
        yield found


@pytest.fixture
async def api(tmp_path: Path, hub: HubStandIn) -> AsyncIterator[Api]:
    compute = InProcessCompute([cpu_offer("cpu", provider="fake", memory_gb=8)], name="fake")
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path / "var",
        hub_url=hub.url,
        outbound_allow="127.0.0.1",
        bootstrap_user="owner",
        bootstrap_password=PASSWORD,
    )
    with listening("127.0.0.1", 0) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        async with running(settings, url, providers={"fake": InProcessProvider(compute)}) as service:
            config = uvicorn.Config(service.asgi, log_config=None, lifespan="off", access_log=False)
            config.timeout_graceful_shutdown = 1
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server._serve(sockets=[sock]))
            owner = httpx.AsyncClient(base_url=url, timeout=20)
            owner.headers["authorization"] = await sign_in(url, "owner")
            yield Api(service, url, hub, compute, owner)
            await owner.aclose()
            server.should_exit = True
            await serving
