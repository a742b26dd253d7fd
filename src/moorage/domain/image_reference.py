"""References to container images, read as the container engines read them.

`python`, `acme/app:1.4` and `registry.example:8443/app@sha256:…` name a registry, a repository there, and a
manifest. What may be left out has the defaults of Docker: its own registry, `library/`, the tag `latest`. The
grammar is that of the distribution project, so that what is accepted here is what a container engine will
pull, and what a registry is asked for is what will be pulled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
LONGEST_REPOSITORY = 255
FORM = "Write it as [registry/]path[:tag][@sha256:digest]."

_OLD_DEFAULT = "index.docker.io"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]{{2,45}}\])(?::(?P<port>\d{{1,5}}))?")
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_IDENTIFIER = re.compile(r"[0-9a-f]{64}")
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """`registry` is a host with an optional port. At least one of `tag` and `digest` is set; of both, the
    digest decides."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError with the rule that `text` breaks, as a sentence."""
        rest, at, digest = text.partition("@")
        if at and not _DIGEST.fullmatch(digest):
            raise ValueError("A digest is sha256: and 64, or sha512: and 128, lower-case hexadecimal digits.")
        path, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:  # the colon of a registry's port
            path, colon, tag = rest, "", ""
        if colon and not _TAG.fullmatch(tag):
            raise ValueError(
                "A tag has 1 to 128 letters, digits, '_', '.' and '-', and starts with none of the last two."
            )
        registry, repository = _places(path)
        return cls(registry, repository, (tag or None) if colon or at else DEFAULT_TAG, digest or None)

    @property
    def reference(self) -> str:
        """What names the manifest in the repository."""
        return self.digest or self.tag or DEFAULT_TAG

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine, where the engines speak plain HTTP too."""
        return _LOOPBACK.fullmatch(self.registry) is not None

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{self.registry}/{self.repository}{tag}{digest}"


def pinned(image: str, digest: str) -> str:
    """The image as its owner wrote it, tied to what the tag stood for. One with a digest stays as it is."""
    return image if "@" in image else f"{image}@{digest}"


def _places(path: str) -> tuple[str, str]:
    """Registry and repository. The first part is a registry when it could be no part of a repository."""
    first, slash, others = path.partition("/")
    if slash and (first == "localhost" or first != first.lower() or re.search(r"[.:\[]", first)):
        registry, repository = _registry(first), others
    else:
        registry, repository = DEFAULT_REGISTRY, path
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(
            "A path has parts of lower-case letters and digits, joined by '.', '_', '__' or '-', between '/'."
        )
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        if _IDENTIFIER.fullmatch(repository):
            raise ValueError("64 hexadecimal digits are the id of a local image, which no registry knows.")
        repository = f"library/{repository}"
    if len(repository) > LONGEST_REPOSITORY:
        raise ValueError(f"A path has at most {LONGEST_REPOSITORY} characters.")
    return registry, repository


def _registry(text: str) -> str:
    match = _REGISTRY.fullmatch(text)
    if match is None or len(text) > 253:
        raise ValueError("A registry is a host name with an optional port.")
    if match["port"] is not None and not 1 <= int(match["port"]) <= 65535:
        raise ValueError("A registry's port is from 1 to 65535.")
    return DEFAULT_REGISTRY if text == _OLD_DEFAULT else text
