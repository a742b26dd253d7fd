"""What an organization gives to register a model version, and the rules it must keep.

A version is a container image that was made elsewhere, or a model of the Hub under a name of one's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from moorage.domain.image_reference import ImageReference
from moorage.domain.model import ContainerImage, HubModel, Source
from moorage.domain.model_version import ModelKind
from moorage.domain.source_rules import hub_errors, image_errors
from moorage.errors import FieldError

LONGEST_PASSWORD = 8192  # some registries take a whole key file
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,62}[A-Za-z0-9])?")
_USERNAME = re.compile(r"[\x21-\x39\x3b-\x7e]{1,256}")
_UNSENDABLE = re.compile(r"[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class NewModelVersion:
    """Exactly one of `container_image` and `hf_model_id`."""

    name: str
    version: str
    container_image: str | None = None
    registry_username: str | None = field(default=None, repr=False)
    registry_password: str | None = field(default=None, repr=False)
    hf_model_id: str | None = None
    revision: str | None = None
    hf_token: str | None = field(default=None, repr=False)

    @property
    def kind(self) -> ModelKind:
        """Only after `broken_rules` found none."""
        imported = self.container_image is not None
        return ModelKind.IMPORTED_CONTAINER if imported else ModelKind.CUSTOM_MODEL

    @property
    def source(self) -> Source:
        """Only after `broken_rules` found none."""
        if self.container_image is not None:
            return ContainerImage(self.container_image)
        assert self.hf_model_id is not None
        return HubModel(self.hf_model_id, self.revision)

    @property
    def secrets(self) -> dict[str, str]:
        """As `ModelVersion.sealed` keeps them; empty where none were given. Only after `broken_rules` found
        none."""
        if self.hf_token is not None:
            return {"hf_token": self.hf_token}
        if self.container_image is None or self.registry_username is None or self.registry_password is None:
            return {}
        server = ImageReference.parse(self.container_image).registry
        return {"server": server, "username": self.registry_username, "password": self.registry_password}


def broken_rules(new: NewModelVersion) -> tuple[FieldError, ...]:
    """The rules that the request breaks by itself, without asking anybody."""
    return tuple(
        chain(
            _named(new),
            _one_source(new),
            image_errors(new.container_image),
            hub_errors(new.hf_model_id, new.revision, new.hf_token),
            _belonging(new),
            _access(new),
        )
    )


def _named(new: NewModelVersion) -> Iterator[FieldError]:
    if not _NAME.fullmatch(new.name):
        message = "A name has 1 to 64 letters, digits, '.', '_' and '-', a letter or digit at both ends."
        yield _error("name", "name", message)
    if not _VERSION.fullmatch(new.version):
        message = (
            "A version has 1 to 64 letters, digits, '.', '_', '+' and '-', a letter or digit at both ends."
        )
        yield _error("version", "version", message)


def _one_source(new: NewModelVersion) -> Iterator[FieldError]:
    rule = "exactly_one_source"
    if new.container_image is None and new.hf_model_id is None:
        yield _error("container_image", rule, "Give exactly one of container_image, hf_model_id.")
    elif new.container_image is not None and new.hf_model_id is not None:
        for name in ("container_image", "hf_model_id"):
            yield _error(name, rule, "Give only one of container_image, hf_model_id.")


def _belonging(new: NewModelVersion) -> Iterator[FieldError]:
    """What belongs to the other kind of source. (That a revision needs a Hub model is `hub_errors`' rule.)"""
    if new.hf_model_id is None and new.hf_token is not None:
        yield _error("hf_token", "needs_hf_model_id", "hf_token goes with hf_model_id.")
    for name in ("registry_username", "registry_password"):
        if new.container_image is None and getattr(new, name) is not None:
            yield _error(name, "needs_container_image", f"{name} goes with container_image.")


def _access(new: NewModelVersion) -> Iterator[FieldError]:
    username, password = new.registry_username, new.registry_password
    if (username is None) != (password is None):
        missing = "registry_username" if username is None else "registry_password"
        yield _error(missing, "both_or_neither", "registry_username and registry_password go together.")
    if username is not None and not _USERNAME.fullmatch(username):
        message = "A user name has 1 to 256 visible ASCII characters, no ':'."
        yield _error("registry_username", "username", message)
    if password is not None and (not 1 <= len(password) <= LONGEST_PASSWORD or _UNSENDABLE.search(password)):
        message = f"A password has 1 to {LONGEST_PASSWORD} characters, no NUL."
        yield _error("registry_password", "password", message)


def _error(name: str, rule: str, message: str) -> FieldError:
    return FieldError(f"body.{name}", rule, message)
