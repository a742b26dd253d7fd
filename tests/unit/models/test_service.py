"""The models service over a store in memory: races, silence, and keys that are gone."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from moorage.adapters.secrets import KeyRing
from moorage.domain.identity import Principal, Role
from moorage.domain.image_reference import ImageReference
from moorage.domain.model import ContainerImage, HubModel, ModelProfile
from moorage.domain.model_registration import NewModelVersion
from moorage.domain.model_version import ImportState, ModelVersion
from moorage.domain.naming import new_id
from moorage.errors import Clash, Forbidden, HubUnavailable, ImageMissing, Invalid, StaleWrite
from moorage.ports.outside import ImageFound, RegistryAccess
from moorage.ports.store import Update, Write
from moorage.services import models as module
from moorage.services.idempotency import Idempotency
from moorage.services.models import Models, ModelSurroundings
from moorage.testing.store import MemoryStore

NOW = datetime(2026, 11, 21, tzinfo=UTC)
OWNER = Principal("usr", "org", Role.OWNER)
IMAGE = NewModelVersion("serve", "1", container_image="acme/serve:1")
LOCKED = NewModelVersion(
    "serve", "2", container_image="acme/serve:2", registry_username="bot", registry_password="open sesame"
)
DIGEST = "sha256:" + "0" * 64


class Clock:
    def now(self) -> datetime:
        return NOW


@dataclass
class Images:
    """A registry that has all images, or none; it keeps what it was asked with."""

    empty: bool = False
    asked: list[RegistryAccess | None] = field(default_factory=list)

    async def look(self, image: ImageReference, access: RegistryAccess | None) -> ImageFound:
        await asyncio.sleep(0)  # so that racing requests meet
        self.asked.append(access)
        if self.empty:
            raise ImageMissing("There is none.", advice="Push it.")
        return ImageFound(DIGEST)


class SilentHub:
    async def profile(self, model: HubModel, token: str | None) -> ModelProfile:
        await asyncio.Event().wait()
        raise AssertionError


class DownHub:
    async def profile(self, model: HubModel, token: str | None) -> ModelProfile:
        raise HubUnavailable("The Hub answers 503.")


class LosingStore(MemoryStore):
    """Its first `left` updates lose their race."""

    left = 0

    async def commit(self, writes: Sequence[Write]) -> None:
        if self.left and any(isinstance(write, Update) for write in writes):
            self.left -= 1
            raise StaleWrite("somebody was first")
        await super().commit(writes)


@dataclass
class World:
    store: LosingStore = field(default_factory=LosingStore)
    images: Images = field(default_factory=Images)
    box: KeyRing = field(default_factory=lambda: KeyRing([("k", secrets.token_bytes(32))]))

    def models(self, hub: SilentHub | DownHub | None = None) -> Models:
        entropy = itertools.count()
        return Models(
            ModelSurroundings(
                self.store,
                self.images,
                hub or DownHub(),
                self.box,
                Idempotency(self.store, self.box, Clock()),
                Clock(),
                lambda prefix: new_id(prefix, NOW, secrets.token_bytes(8) + next(entropy).to_bytes(2, "big")),
            )
        )


async def made(models: Models, new: NewModelVersion, principal: Principal = OWNER) -> ModelVersion:
    rows: list[ModelVersion] = []

    def render(row: ModelVersion) -> bytes:
        rows.append(row)
        return b"{}"

    answer = await models.create(principal, new, None, "", render)
    assert answer.status == 201
    return rows[-1]


async def test_of_ten_at_once_one_is_registered() -> None:
    models = World().models()
    outcomes = await asyncio.gather(*(made(models, IMAGE) for _ in range(10)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Clash"] * 9 + ["ModelVersion"]
    assert len((await models.page(OWNER, None, 10)).items) == 1


async def test_the_registry_is_asked_with_what_was_given_and_it_is_kept_sealed() -> None:
    world = World()
    models = world.models()
    row = await made(models, LOCKED)
    access = RegistryAccess("docker.io", "bot", "open sesame")
    assert world.images.asked == [access]
    assert "sesame" not in f"{row} {row.sealed}"
    source, _, opened = await models.resolve("org", row.id)
    assert source == ContainerImage(f"acme/serve:2@{DIGEST}")
    assert RegistryAccess(**opened) == access


async def test_credentials_under_a_key_that_is_gone_deploy_nothing() -> None:
    world = World()
    row = await made(world.models(), LOCKED)
    world.box = KeyRing([("other", secrets.token_bytes(32))])
    with pytest.raises(Invalid, match="cannot be opened") as refused:
        await world.models().resolve("org", row.id)
    assert refused.value.code == "model_not_ready"


async def test_a_hub_that_says_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HUB_SECONDS", 0.05)
    for hub in (SilentHub(), DownHub()):
        row = await made(World().models(hub), NewModelVersion("digits", "1", hf_model_id="acme/digits"))
        assert (row.state, row.source) == (ImportState.SUCCESS, HubModel("acme/digits"))
        assert "could not be verified" in (row.detail or "")


async def test_a_failed_import_says_why_and_what_to_do() -> None:
    row = await made(World(images=Images(empty=True)).models(), IMAGE)
    assert (row.state, row.detail) == (ImportState.FAILED, "There is none. Push it.")


async def test_a_removal_that_loses_its_race_is_tried_again() -> None:
    world = World()
    models = world.models()
    row = await made(models, LOCKED)
    world.store.left = 3
    await models.remove(OWNER, row.id)
    stored = await world.store.model_version(row.id, "org")
    assert stored is not None
    assert (stored.sealed, stored.removed_at) == (None, NOW)
    types = {event.type for event in await world.store.events(row.id, None, 10)}
    assert types == {"model.registered", "model.removed"}


@pytest.mark.parametrize("role", [Role.VIEWER, Role.INVOKER])
async def test_who_may_not_deploy_registers_and_removes_nothing(role: Role) -> None:
    world = World()
    models = world.models()
    row = await made(models, IMAGE)
    other = Principal("usr_2", "org", role)
    with pytest.raises(Forbidden):
        await made(models, LOCKED, other)
    with pytest.raises(Forbidden):
        await models.remove(other, row.id)
    assert world.images.asked == [None], "nobody was asked on behalf of who may not"
    with pytest.raises(Clash):
        await made(models, IMAGE)
