"""A model version that an organization registered: a container image that it imported, or a custom model."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from moorage.domain.model import Source


class ImportState(StrEnum):
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


class ModelKind(StrEnum):
    IMPORTED_CONTAINER = "imported_container"
    CUSTOM_MODEL = "custom_model"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """`state` says whether it may be deployed; `detail` why not, or what could not be verified. `digest` is
    what the image's reference named when it was registered. `sealed` is JSON `{"server", "username",
    "password"}` of the registry, or `{"hf_token"}` of the Hub, or None; `server` is the registry's host."""

    id: str
    organization_id: str
    name: str
    model_version: str
    kind: ModelKind
    source: Source
    state: ImportState
    created_at: datetime
    created_by: str
    detail: str | None = None
    digest: str | None = None
    sealed: str | None = field(default=None, repr=False)
    removed_at: datetime | None = None
    version: int = 0
