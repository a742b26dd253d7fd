"""What the core needs of the world at large, as protocols: time, secrets, hubs, registries, guarded requests.

Each protocol's docstring is its contract; `main` says which adapter keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from moorage.domain.image_reference import ImageReference
from moorage.domain.model import (
    HubModel,
    ModelProfile,
)


class Clock(Protocol):
    def now(self) -> datetime:
        """The time, with zone UTC."""


class SecretBox(Protocol):
    """Authenticated sealing under a key ring. `context` is bound to the text: a sealed value moved to
    another place does not open."""

    def seal(self, secret: bytes, context: str) -> str: ...

    def open(self, sealed: str, context: str) -> bytes:
        """Raises ValueError when the text was changed, moved, or sealed under a key that is gone."""

    def derive(self, purpose: str) -> tuple[bytes, ...]:
        """32 bytes for another use, one for each key of the ring: sign with the first, accept all."""


@dataclass(frozen=True, slots=True)
class OutgoingAnswer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes  # cut at the guard's limit


class Outgoing(Protocol):
    """The one way to a URL that a user gave: https, public addresses only, pinned after resolution, no
    redirects, bounded answer and time."""

    async def check(self, url: str) -> None:
        """Raises OutgoingRefused with the rule that the URL breaks; connects to nothing."""

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float
    ) -> OutgoingAnswer:
        """Checks again, then sends. Raises OutgoingRefused, or OutgoingFailed when no answer came."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> OutgoingAnswer:
        """`request` with the method POST."""


class Resolve(Protocol):
    """The one guard for outgoing connections, for providers that connect where users say."""

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """IP addresses that may be connected to now. Raises OutgoingRefused when the host is, or leads to, an
        address that is not public and that the operator did not allow; OSError when it is not known."""


class ModelHub(Protocol):
    async def profile(self, model: HubModel, token: str | None) -> ModelProfile:
        """Reads metadata only, never weights. Raises a ModelError, or HubUnavailable."""


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """What opens a private registry of images; `server` is its host."""

    server: str
    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImageFound:
    """`digest` is of what a pull of the reference would get now: one image, or an index of several."""

    digest: str


class ImageRegistry(Protocol):
    async def look(self, image: ImageReference, access: RegistryAccess | None) -> ImageFound:
        """Asks the image's registry whether it exists; pulls nothing. Raises ImageMissing, RegistryRefused
        or RegistrySilent."""


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of a model in the shared cache; `url` opens it for a while, and for reading only."""

    path: str
    size: int
    url: str = field(repr=False)


class SharedModelCache(Protocol):
    """The operator's bucket of weights, for models of its list."""

    async def manifest(self, repo_id: str, revision: str) -> Sequence[CachedFile] | None:
        """All files of the model at that commit; None when it is not there whole. Raises OSError when the
        bucket cannot be read."""
