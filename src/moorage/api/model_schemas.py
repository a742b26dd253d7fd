"""The words of the models surface: what it takes and gives, for validation and for the document."""

from __future__ import annotations

from typing import Annotated, Any  # examples are untyped JSON

from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints

from moorage.domain.model import ContainerImage, HubModel
from moorage.domain.model_registration import NewModelVersion
from moorage.domain.model_version import ImportState, ModelKind, ModelVersion
from moorage.domain.naming import uuid_of
from moorage.domain.view import instant

Text = Annotated[str, StringConstraints(max_length=1024)]
Secret = Annotated[str, StringConstraints(max_length=16_384)]

MODEL_ID = "019aa5b5-7f60-7d0c-a4c1-0a1b2c3d4e60"
_DIGEST = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
IMAGE: dict[str, Any] = {
    "id": MODEL_ID,
    "uuid": MODEL_ID,
    "name": "acme-serve",
    "version": "1.4",
    "status": "SUCCESS",
    "type": "imported_container",
    "container_image": "ghcr.io/acme/serve:1.4",
    "hf_model_id": None,
    "revision": None,
    "digest": _DIGEST,
    "detail": None,
    "created_at": "2026-11-21T09:00:00.000000Z",
    "created_by": "usr_27k4m6q2x5y3zj7abcdefghijk",
}
CUSTOM: dict[str, Any] = {
    **IMAGE,
    "name": "our-digits",
    "version": "2",
    "type": "custom_model",
    "container_image": None,
    "hf_model_id": "acme/digits",
    "revision": "0123456789abcdef0123456789abcdef01234567",
    "digest": None,
}


class ModelRequest(BaseModel):
    """Exactly one of `container_image` and `hf_model_id`."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "acme-serve",
                    "version": "1.4",
                    "container_image": "ghcr.io/acme/serve:1.4",
                    "registry_username": "acme-bot",
                    "registry_password": "ghp_…",
                },
                {"name": "our-digits", "version": "2", "hf_model_id": "acme/digits", "revision": "main"},
            ]
        },
    )

    name: Text = Field(description="Unique among your models, together with `version`.")
    version: Text
    container_image: Text | None = Field(
        None, description="`[registry/]path[:tag][@digest]`, with the defaults of Docker."
    )
    registry_username: Secret | None = Field(None, description="Of a private image. Sealed, never shown.")
    registry_password: Secret | None = Field(None, description="Of a private image. Sealed, never shown.")
    hf_model_id: Text | None = Field(None, description="A Hugging Face model, `owner/name`.")
    revision: Text | None = Field(None, description="Branch, tag or commit of `hf_model_id`.")
    hf_token: Secret | None = Field(None, description="Of a private model. Sealed, never shown.")

    def to_domain(self) -> NewModelVersion:
        return NewModelVersion(**self.model_dump())


class ModelDocument(BaseModel):
    """A model version. `SUCCESS`: it may be deployed."""

    model_config = ConfigDict(json_schema_extra={"examples": [IMAGE, CUSTOM]})

    id: str = Field(description="The same as `uuid`.")
    uuid: str = Field(description="What a deployment names as its `model_repo` or `model_id`.")
    name: str
    version: str
    status: ImportState
    type: ModelKind
    container_image: str | None
    hf_model_id: str | None
    revision: str | None = Field(description="The commit, once the Hub has told it.")
    digest: str | None = Field(description="What `container_image` was then, and is deployed as.")
    detail: str | None = Field(description="Why it failed, or what could not be verified.")
    created_at: str
    created_by: str


class ModelList(RootModel[list[ModelDocument]]):
    model_config = ConfigDict(json_schema_extra={"examples": [[IMAGE]]})


class Removed(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"message": f"Model {MODEL_ID} deleted successfully"}]}
    )
    message: str


def model_view(row: ModelVersion) -> dict[str, object]:
    """As a `ModelDocument`. Never the secrets."""
    uuid, source = str(uuid_of(row.id)), row.source
    hub = source if isinstance(source, HubModel) else None
    return {
        "id": uuid,
        "uuid": uuid,
        "name": row.name,
        "version": row.model_version,
        "status": row.state.value,
        "type": row.kind.value,
        "container_image": source.image if isinstance(source, ContainerImage) else None,
        "hf_model_id": None if hub is None else hub.repo_id,
        "revision": None if hub is None else hub.revision,
        "digest": row.digest,
        "detail": row.detail,
        "created_at": instant(row.created_at),
        "created_by": row.created_by,
    }
