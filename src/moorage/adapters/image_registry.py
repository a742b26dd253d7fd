"""Asks a container registry whether an image exists, by the OCI distribution API.

Every request goes through the outgoing guard, also the one for a token: where a registry sends us for it is
its own choice, and may be inside our network. HEAD comes first, which registries do not count as a pull; GET
when that was not enough. Nothing is kept between two looks.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping

import httpx

from moorage.adapters.registry_answers import (
    MANIFEST_TYPES,
    Challenge,
    challenges,
    digest_of,
    is_manifest,
    is_worth_a_get,
    refusal,
    token_of,
    token_refusal,
)
from moorage.domain.image_reference import DEFAULT_REGISTRY, ImageReference
from moorage.errors import OutgoingFailed, OutgoingRefused, RegistrySilent
from moorage.ports.outside import ImageFound, Outgoing, OutgoingAnswer, RegistryAccess

LOOK_SECONDS = 10.0  # for all questions about one image
ASK_SECONDS = 5.0  # for one of them
DOCKER_HUB = "registry-1.docker.io"  # where docker.io has its API
USER_AGENT = "moorage"


class HttpImageRegistry:
    """An `ImageRegistry`. `seconds` bounds one look, `ask_seconds` each request of it."""

    def __init__(
        self, outgoing: Outgoing, *, seconds: float = LOOK_SECONDS, ask_seconds: float = ASK_SECONDS
    ) -> None:
        self._outgoing = outgoing
        self._seconds = seconds
        self._ask_seconds = ask_seconds

    async def look(self, image: ImageReference, access: RegistryAccess | None) -> ImageFound:
        look = _Look(self._outgoing, image, access, self._ask_seconds)
        try:
            async with asyncio.timeout(self._seconds):
                return await look.found()
        except TimeoutError:
            raise RegistrySilent(
                f"{image.registry} did not answer within {self._seconds:g} seconds."
            ) from None


class _Look:
    """The questions about one image."""

    def __init__(
        self, outgoing: Outgoing, image: ImageReference, access: RegistryAccess | None, seconds: float
    ) -> None:
        self._outgoing = outgoing
        self._image = image
        self._access = access
        self._seconds = seconds
        self._authorization: dict[str, str] = {}

    async def found(self) -> ImageFound:
        url, answer = await self._first()
        if answer.status == 401:
            await self._authorize(answer)
            answer = await self._ask("HEAD", url)
        method = "HEAD"
        if is_worth_a_get(answer):  # a HEAD has no words for what is wrong, and not every registry knows it
            method, answer = "GET", await self._ask("GET", url)
        if not is_manifest(answer):
            raise refusal(self._image, answer, with_access=self._access is not None)
        digest = digest_of(answer, method)
        if digest is None or self._image.digest not in (None, digest):
            raise RegistrySilent(f"{self._image.registry} does not tell the digest of the image.")
        return ImageFound(digest)

    async def _first(self) -> tuple[str, OutgoingAnswer]:
        """The manifest's URL, and what the first HEAD to it gave. A registry on this machine is asked without
        TLS when it speaks none, as container engines do."""
        host = DOCKER_HUB if self._image.registry == DEFAULT_REGISTRY else self._image.registry
        path = f"{host}/v2/{self._image.repository}/manifests/{self._image.reference}"
        url = f"https://{path}"
        try:
            return url, await self._ask("HEAD", url)
        except RegistrySilent:
            if not self._image.is_loopback:
                raise
        url = f"http://{path}"
        return url, await self._ask("HEAD", url)

    async def _ask(self, method: str, url: str) -> OutgoingAnswer:
        headers = {"accept": ", ".join(MANIFEST_TYPES), **self._authorization}
        return await self._request(method, url, headers, self._image.registry)

    async def _authorize(self, refused: OutgoingAnswer) -> None:
        """Follows what the registry wants, the token before the password."""
        offered = {c.scheme: c for c in challenges(refused.headers.get("www-authenticate", ""))}
        if "bearer" in offered:
            self._authorization = {"authorization": f"Bearer {await self._token(offered['bearer'])}"}
        elif "basic" in offered and self._access is not None:
            self._authorization = _basic(self._access)
        else:
            raise refusal(self._image, refused, with_access=self._access is not None)

    async def _token(self, challenge: Challenge) -> str:
        realm = challenge.parameters.get("realm", "")
        scope = challenge.parameters.get("scope") or f"repository:{self._image.repository}:pull"
        query = {"service": challenge.parameters.get("service"), "scope": scope}
        try:
            url = httpx.URL(realm).copy_merge_params({k: v for k, v in query.items() if v is not None})
        except httpx.InvalidURL:
            raise RegistrySilent(f"{self._image.registry} names no URL that gives out tokens.") from None
        headers = {} if self._access is None else _basic(self._access)
        answer = await self._request("GET", str(url), headers, f"The token server of {self._image.registry}")
        token = token_of(answer) if answer.status == 200 else None
        if token is None:
            raise token_refusal(self._image, answer, with_access=self._access is not None)
        return token

    async def _request(self, method: str, url: str, headers: Mapping[str, str], who: str) -> OutgoingAnswer:
        try:
            return await self._outgoing.request(
                method, url, {"user-agent": USER_AGENT, **headers}, b"", self._seconds
            )
        except OutgoingRefused as refused:
            raise RegistrySilent(f"{who} may not be asked by this service: {refused.detail}.") from refused
        except OutgoingFailed as failed:
            raise RegistrySilent(f"{who} does not answer.") from failed


def _basic(access: RegistryAccess) -> dict[str, str]:
    pair = base64.b64encode(f"{access.username}:{access.password}".encode()).decode()
    return {"authorization": f"Basic {pair}"}
