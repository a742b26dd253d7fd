"""Model versions that organizations register: container images made elsewhere, and models of the Hub.

What is registered is looked up once, and tied to what was found: an image to its digest, a Hub model to its
commit. A registry that says no makes a version that cannot be deployed, and says why; one that says nothing
stands in nobody's way, since the cluster that pulls the image may reach what this service may not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from moorage.domain.deployment import Deployment
from moorage.domain.event import Event
from moorage.domain.identity import Permission, Principal
from moorage.domain.image_reference import ImageReference, pinned
from moorage.domain.model import ContainerImage, HubModel, Source
from moorage.domain.model_registration import NewModelVersion, broken_rules
from moorage.domain.model_version import ImportState, ModelVersion
from moorage.domain.notice import NewId
from moorage.errors import (
    AlreadyExists,
    Clash,
    FieldError,
    HubUnavailable,
    Invalid,
    ModelError,
    NotFound,
    RegistryError,
    RegistrySilent,
    StaleWrite,
)
from moorage.ports.outside import Clock, ImageRegistry, ModelHub, RegistryAccess, SecretBox
from moorage.ports.store import Append, Insert, Page, Store, Update, Write
from moorage.services.authorization import require
from moorage.services.idempotency import Answer, Idempotency
from moorage.services.live_deployments import first_live

HUB_SECONDS = 8.0  # for the Hub to say whether there is such a model

Render = Callable[[ModelVersion], bytes]


@dataclass(frozen=True, slots=True)
class ModelSurroundings:
    """What the models service needs from outside."""

    store: Store
    images: ImageRegistry
    hub: ModelHub
    box: SecretBox
    idempotency: Idempotency
    clock: Clock
    new_id: NewId


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look has made of a source. `detail` says why it failed, or what could not be verified."""

    state: ImportState
    source: Source
    detail: str | None = None
    digest: str | None = None


class Models:
    """A `services.deployments.RegisteredModels`, and what users do with them."""

    def __init__(self, surroundings: ModelSurroundings) -> None:
        self._out = surroundings

    async def create(
        self, principal: Principal, new: NewModelVersion, key: str | None, fingerprint: str, render: Render
    ) -> Answer:
        """Looks it up and stores it, deployable or not. Raises Invalid by field, and Clash for a name and
        version that are taken."""
        require(principal, Permission.DEPLOY)

        async def make() -> tuple[Sequence[Write], int, bytes]:
            _refuse_broken(new)
            row = self._row(principal, new, await self._look(new))
            told = f"{row.name} {row.model_version} was registered: {row.state}."
            event = self._event(principal, row, "model.registered", told)
            return [Insert(row), Append(event)], 201, render(row)

        try:
            return await self._out.idempotency.once(principal, key, fingerprint, make)
        except AlreadyExists as error:
            if error.kind != "model_version":
                raise
            raise Clash.at(
                "body.version",
                "unique_in_organization",
                f"{new.name} {new.version} is registered already.",
                code="version_taken",
                advice="Choose another version, or delete that one first.",
            ) from error

    async def page(self, principal: Principal, cursor: str | None, limit: int) -> Page[ModelVersion]:
        """Newest first."""
        require(principal, Permission.READ)
        try:
            return await self._out.store.model_versions(principal.organization_id, cursor, limit)
        except ValueError as error:
            message = "Use the cursor of an earlier page as it is."
            raise Invalid.at("query.cursor", "cursor", message) from error

    async def get(self, principal: Principal, model_id: str) -> ModelVersion:
        """Raises NotFound, as for one that was removed."""
        require(principal, Permission.READ)
        row = await self._out.store.model_version(model_id, principal.organization_id)
        if row is None or row.removed_at is not None:
            raise _not_found(model_id)
        return row

    async def remove(self, principal: Principal, model_id: str) -> None:
        """May be repeated. Its secrets are forgotten. Raises Clash while a deployment uses it."""
        require(principal, Permission.DEPLOY)
        store, organization_id = self._out.store, principal.organization_id
        while True:
            row = await store.model_version(model_id, organization_id)
            if row is None:
                raise _not_found(model_id)
            if row.removed_at is not None:
                return
            await self._refuse_while_used(row)
            removed = replace(row, sealed=None, removed_at=self._out.clock.now())
            event = self._event(
                principal, row, "model.removed", f"{row.name} {row.model_version} was removed."
            )
            try:
                await store.commit([Update(removed), Append(event)])
            except StaleWrite:
                continue
            return

    async def resolve(
        self, organization_id: str, model_id: str
    ) -> tuple[Source, ModelVersion, Mapping[str, str]]:
        """What is served, an image tied to its digest; the row; and the opened secrets that go with it:
        `hf_token`, or `server`, `username` and `password` of the image's registry. Raises Invalid at
        `body.model_id`: `model_not_found`, or `model_not_ready`."""
        row = await self._out.store.model_version(model_id, organization_id)
        if row is None or row.removed_at is not None:
            raise Invalid.at(
                "body.model_id",
                "model_not_found",
                f"There is no model {model_id!r}.",
                code="model_not_found",
                advice="See GET /models for those that are there, or register it with POST /models.",
            )
        if row.state is not ImportState.SUCCESS:
            raise _not_ready(row, row.detail or "Its import failed.")
        source = row.source
        if isinstance(source, ContainerImage) and row.digest is not None:
            source = ContainerImage(pinned(source.image, row.digest))
        return source, row, self._opened(row)

    # -- looking -----------------------------------------------------------------------------------------

    async def _look(self, new: NewModelVersion) -> _Found:
        source = new.source
        if isinstance(source, ContainerImage):
            return await self._look_at_image(source, new.secrets)
        assert isinstance(source, HubModel)
        return await self._look_at_hub(source, new.hf_token)

    async def _look_at_image(self, source: ContainerImage, secrets: Mapping[str, str]) -> _Found:
        access = RegistryAccess(**secrets) if secrets else None
        try:
            found = await self._out.images.look(ImageReference.parse(source.image), access)
        except RegistrySilent as error:
            return _Found(ImportState.SUCCESS, source, f"It could not be verified: {error.detail}")
        except RegistryError as error:
            return _Found(ImportState.FAILED, source, _words(error.detail, error.advice))
        return _Found(ImportState.SUCCESS, source, digest=found.digest)

    async def _look_at_hub(self, source: HubModel, token: str | None) -> _Found:
        try:
            async with asyncio.timeout(HUB_SECONDS):
                profile = await self._out.hub.profile(source, token)
        except ModelError as error:
            return _Found(ImportState.FAILED, source, _words(error.detail, error.advice))
        except (HubUnavailable, TimeoutError):
            return _Found(ImportState.SUCCESS, source, "It could not be verified: the Hub does not answer.")
        return _Found(ImportState.SUCCESS, HubModel(source.repo_id, profile.revision))

    # -- parts -------------------------------------------------------------------------------------------

    def _row(self, principal: Principal, new: NewModelVersion, found: _Found) -> ModelVersion:
        out, secrets = self._out, new.secrets
        id_ = out.new_id("mdl")
        return ModelVersion(
            id=id_,
            organization_id=principal.organization_id,
            name=new.name,
            model_version=new.version,
            kind=new.kind,
            source=found.source,
            state=found.state,
            created_at=out.clock.now(),
            created_by=principal.id,
            detail=found.detail,
            digest=found.digest,
            sealed=out.box.seal(json.dumps(secrets).encode(), _context(id_)) if secrets else None,
        )

    def _opened(self, row: ModelVersion) -> Mapping[str, str]:
        if row.sealed is None:
            return {}
        try:
            opened: dict[str, str] = json.loads(self._out.box.open(row.sealed, _context(row.id)))
        except ValueError as error:
            raise _not_ready(row, "Its credentials cannot be opened any more.") from error
        return opened

    async def _refuse_while_used(self, row: ModelVersion) -> None:
        def uses(deployment: Deployment) -> bool:
            return deployment.spec.model_version_id == row.id

        user = await first_live(self._out.store, row.organization_id, uses)
        if user is not None:
            raise Clash(
                f"The deployment {user.name!r} ({user.id}) uses this model.",
                code="model_in_use",
                advice="Delete the deployments that use it first.",
            )

    def _event(self, principal: Principal, row: ModelVersion, type_: str, message: str) -> Event:
        now, id_ = self._out.clock.now(), self._out.new_id("evt")
        data = {"name": row.name, "version": row.model_version, "status": row.state.value}
        return Event(id_, row.organization_id, row.id, type_, now, principal.id, message, data)


def _refuse_broken(new: NewModelVersion) -> None:
    errors: Sequence[FieldError] = broken_rules(new)
    if errors:
        raise Invalid("; ".join(e.message for e in errors), errors=errors)


def _not_found(model_id: str) -> NotFound:
    return NotFound(f"There is no model {model_id!r}.", code="model_not_found")


def _not_ready(row: ModelVersion, cause: str) -> Invalid:
    return Invalid.at(
        "body.model_id",
        "model_not_ready",
        f"{row.name} {row.model_version} cannot be deployed, its status is not SUCCESS. {cause}",
        code="model_not_ready",
        advice="Delete it, and register it again when its cause is gone.",
    )


def _words(detail: str, advice: str | None) -> str:
    return detail if advice is None else f"{detail} {advice}"


def _context(model_id: str) -> str:
    return f"model {model_id}"
