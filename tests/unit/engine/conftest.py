"""An engine on a store in memory, with a provider in memory and a Hub that knows one model."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from moorage.adapters.registry import catalog
from moorage.adapters.secrets import KeyRing
from moorage.adapters.system import SystemClock, SystemIds
from moorage.credentials import Vault
from moorage.domain.decide import Patience
from moorage.domain.deployment import Deployment, DeploymentSpec, Phase, Status
from moorage.domain.event import Event
from moorage.domain.model import HubModel, ModelProfile, SizedItem, WeightFormat, WeightSet
from moorage.engine.drive import Driver
from moorage.engine.effects import Effects, NoLinks
from moorage.engine.loop import Engine, EngineSettings
from moorage.engine.sweeper import Sweeper
from moorage.engine.watches import Watches
from moorage.errors import Problem
from moorage.planning import Planner
from moorage.ports.provider import Provider, RevisionPlan
from moorage.ports.store import Insert, Update
from moorage.testing.provider import InProcessCompute, InProcessProvider, cpu_offer
from moorage.testing.store import MemoryStore

PROFILE = ModelProfile(
    "acme/m",
    "0" * 40,
    (WeightSet(WeightFormat.ONNX, (SizedItem("weights", 1000, "size of model.onnx"),)),),
    task="text-classification",
)


@dataclass
class OneModelHub:
    """Raises what it is told to, in order, then knows the model."""

    problems: list[Problem] = field(default_factory=list)

    async def profile(self, model: HubModel, token: str | None) -> ModelProfile:
        await asyncio.sleep(0)
        if self.problems:
            raise self.problems.pop(0)
        return replace(PROFILE, repo_id=model.repo_id)


class World:
    def __init__(self) -> None:
        self.compute = InProcessCompute(
            [cpu_offer("cheap", price=0.1), cpu_offer("dear", price=0.2)], name="fake"
        )
        self.provider: InProcessProvider = InProcessProvider(self.compute)
        self.hub = OneModelHub()
        self.store = MemoryStore()
        self.box = KeyRing([("k", secrets.token_bytes(32))])
        self.clock = SystemClock()
        self.new_id = SystemIds()
        self.applied = asyncio.Event()
        self.patience = Patience(ready_timeout=5.0, loading_look=0.05, ready_look=0.05)

    def vault(self) -> Vault:
        return Vault(self.store, self.box, self.clock)

    def engine(self, lease_seconds: float = 5.0, machine: str | None = None) -> Engine:
        providers: dict[str, Provider] = {"fake": self.provider}
        planner = Planner(self.hub, providers, catalog(), self.clock)
        effects = Effects(providers, planner, self.box, self.vault(), NoLinks())
        driver = Driver(
            self.store,
            effects,
            self.clock,
            self.new_id,
            public_url="http://here",
            patience=self.patience,
            effect_timeout=5.0,
            lease_seconds=lease_seconds,
            machine=machine,
            on_applied=lambda deployment: self.applied.set(),
        )
        return Engine(self.store, driver, self.clock, EngineSettings(lease_seconds, machine=machine))

    def watches(self, engine: Engine) -> Watches:
        return Watches({"fake": self.provider}, self.vault(), engine.signal)

    def sweeper(self, grace: float = 0.0) -> Sweeper:
        providers = {"fake": self.provider}
        return Sweeper(self.store, providers, self.vault(), self.clock, self.new_id, grace=grace)

    async def deploy(self, **spec: object) -> str:
        now = self.clock.now()
        asked = DeploymentSpec(HubModel("acme/m"), capacity_deadline_seconds=3.0)
        deployment = Deployment(
            id=self.new_id("dep"),
            organization_id="org",
            name=self.new_id("m"),
            spec=replace(asked, **spec),  # type: ignore[arg-type]  # fields by name
            status=Status(Phase.VALIDATING, now, now),
            created_at=now,
            created_by="usr",
            due_at=now,
        )
        await self.store.commit([Insert(deployment)])
        return deployment.id

    async def delete(self, deployment_id: str) -> None:
        found = await self.read(deployment_id)
        now = self.clock.now()
        await self.store.commit([Update(replace(found, deleted_at=now, due_at=now))])

    async def read(self, deployment_id: str) -> Deployment:
        found = await self.store.deployment(deployment_id)
        assert found is not None
        return found

    async def until(self, deployment_id: str, *phases: Phase) -> Deployment:
        async with asyncio.timeout(10):
            while True:
                self.applied.clear()
                found = await self.read(deployment_id)
                if found.status.phase in phases:
                    return found
                await self.applied.wait()

    async def events(self, deployment_id: str) -> Sequence[Event]:
        return await self.store.events(deployment_id, None, 1000)

    async def happened(self, deployment_id: str) -> list[str]:
        return [event.type.removeprefix("deployment.") for event in await self.events(deployment_id)]

    @contextlib.asynccontextmanager
    async def driven(self, engine: Engine | None = None) -> AsyncIterator[Engine]:
        engine = engine or self.engine()
        running = [asyncio.create_task(run) for run in (engine.run(), self.watches(engine).run())]
        try:
            yield engine
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
def plan(world: World) -> RevisionPlan:
    offer = world.compute.offers[0]
    return RevisionPlan("dep", "org", 1, HubModel("acme/m", "0" * 40), "onnx", offer, 1, 1000)
