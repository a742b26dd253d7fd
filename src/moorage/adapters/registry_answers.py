"""What a container registry's answers mean, as pure functions.

The words are those of the OCI distribution specification and of Docker's token authentication. A registry is
a stranger: of what it sends, only what has the documented form is used or told on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.request import parse_http_list

from moorage.domain.image_reference import ImageReference
from moorage.errors import ImageMissing, RegistryError, RegistryRefused, RegistrySilent
from moorage.ports.outside import OutgoingAnswer

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_CODE = re.compile(r"[A-Z][A-Z_]{1,40}")
_NEVER = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NAME_INVALID", "TAG_INVALID", "DIGEST_INVALID"})
_TOKEN = re.compile(r"[\x21-\x7e]{1,32768}")
_BEGINS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9-]*)(?:\s+(?P<rest>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in which a server wants to be told who asks. `scheme` is in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(header: str) -> tuple[Challenge, ...]:
    """Of a `WWW-Authenticate` header; what has no such form is left out."""
    found: list[tuple[str, dict[str, str]]] = []
    for item in parse_http_list(header):
        begins = _BEGINS.fullmatch(item)
        if begins is not None:
            found.append((begins["scheme"].lower(), {}))
            item = begins["rest"] or ""
        name, equals, value = item.partition("=")
        if equals and found:
            found[-1][1][name.strip().lower()] = _unquoted(value.strip())
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def token_of(answer: OutgoingAnswer) -> str | None:
    """The bearer token in an authorization server's answer, None where there is none."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    token = found.get("token") or found.get("access_token")
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None


def is_manifest(answer: OutgoingAnswer) -> bool:
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return answer.status == 200 and media_type in MANIFEST_TYPES


def is_worth_a_get(answer: OutgoingAnswer) -> bool:
    """Whether a GET may tell more than this answer to a HEAD: where it was no manifest, or had no digest. Who
    is overloaded, or sends elsewhere, is not asked twice."""
    if is_manifest(answer):
        return digest_of(answer, "HEAD") is None
    return answer.status == 200 or (400 <= answer.status < 500 and answer.status != 429)


def digest_of(answer: OutgoingAnswer, method: str) -> str | None:
    """Of the manifest that a HEAD or GET found: as the registry says, or computed where all of it came."""
    told = answer.headers.get("docker-content-digest", "")
    if _DIGEST.fullmatch(told):
        return told
    if method == "GET" and answer.headers.get("content-length") == str(len(answer.body)):
        return f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
    return None


def refusal(image: ImageReference, answer: OutgoingAnswer, *, with_access: bool) -> RegistryError:
    """What an answer means that is no manifest."""
    code = _error_code(answer.body)
    said = f"{answer.status} {code}" if code else str(answer.status)
    if answer.status == 404 or (400 <= answer.status < 500 and code in _NEVER):
        what = "repository" if code == "NAME_UNKNOWN" else "image"
        return ImageMissing(
            f"{image.registry} has no {what} {_name(image, what)} ({said}).",
            advice="Check the spelling, or push the image first.",
        )
    if answer.status in (401, 403):
        return _refused(image, said, with_access)
    if answer.status == 429:
        return RegistrySilent(f"{image.registry} takes no more questions for now ({said}).")
    if 300 <= answer.status < 400:
        return RegistrySilent(f"{image.registry} sends elsewhere ({said}), which is not followed.")
    if answer.status == 200:
        return RegistrySilent(f"{image.registry} answered with no manifest of an image.")
    return RegistrySilent(f"{image.registry} answered {said}.")


def token_refusal(image: ImageReference, answer: OutgoingAnswer, *, with_access: bool) -> RegistryError:
    """What an authorization server's answer means that holds no token."""
    if answer.status in (401, 403):
        return _refused(image, str(answer.status), with_access)
    said = "no token" if answer.status == 200 else str(answer.status)
    return RegistrySilent(f"The server that gives out tokens for {image.registry} answered {said}.")


def _refused(image: ImageReference, said: str, with_access: bool) -> RegistryRefused:
    name = _name(image, "repository")
    if with_access:
        return RegistryRefused(
            f"{image.registry} refuses these credentials for {name} ({said}).",
            advice="Check registry_username and registry_password, and that they may pull that repository.",
        )
    return RegistryRefused(
        f"{image.registry} shows {name} to nobody without credentials ({said}).",
        advice="Check the spelling; a private image needs registry_username and registry_password.",
    )


def _name(image: ImageReference, what: str) -> str:
    if what == "repository":
        return image.repository
    return f"{image.repository}{'@' if image.digest else ':'}{image.reference}"


def _error_code(body: bytes) -> str | None:
    """The first of the codes in a registry's error document."""
    try:
        code = json.loads(body)["errors"][0]["code"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None
