"""The adapter against a registry that people run: what was pushed is found, and all else told apart."""

from __future__ import annotations

import pytest

from moorage.adapters.image_registry import HttpImageRegistry
from moorage.domain.image_reference import ImageReference
from moorage.errors import ImageMissing, RegistryRefused
from moorage.ports.outside import ImageFound, RegistryAccess

from .conftest import INDEX, MANIFEST, PASSWORD, USER, Registry, TokenServer


def image(registry: Registry, rest: str) -> ImageReference:
    return ImageReference.parse(f"{registry.host}/{rest}")


def access(registry: Registry, password: str = PASSWORD) -> RegistryAccess:
    return RegistryAccess(registry.host, USER, password)


async def test_what_was_pushed_is_found_by_tag_and_by_digest(
    registry: Registry, asking: HttpImageRegistry
) -> None:
    pushed = registry.push("acme/tiny", "1.0")
    assert await asking.look(image(registry, "acme/tiny:1.0"), None) == ImageFound(pushed)
    assert await asking.look(image(registry, f"acme/tiny@{pushed}"), None) == ImageFound(pushed)
    assert await asking.look(image(registry, f"acme/tiny:other@{pushed}"), None) == ImageFound(pushed)


async def test_of_an_index_of_images_the_digest_is_the_index_s(
    registry: Registry, asking: HttpImageRegistry
) -> None:
    one = registry.push("acme/many", "amd64")
    entry = {
        "mediaType": MANIFEST,
        "digest": one,
        "size": 1,
        "platform": {"architecture": "amd64", "os": "linux"},
    }
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    pushed = registry.put_manifest("acme/many", "latest", INDEX, index)
    assert pushed != one
    assert await asking.look(image(registry, "acme/many"), None) == ImageFound(pushed)


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ("acme/gone:2.0", "has no image acme/gone:2.0 (404 MANIFEST_UNKNOWN)"),
        ("acme/gone@sha256:" + "0" * 64, "has no image acme/gone@sha256:000"),
        ("acme/never:1", "has no image acme/never:1 (404 MANIFEST_UNKNOWN)"),
    ],
)
async def test_what_was_not_pushed_is_missing(
    registry: Registry, asking: HttpImageRegistry, rest: str, told: str
) -> None:
    registry.push("acme/gone", "1.0")
    with pytest.raises(ImageMissing) as missing:
        await asking.look(image(registry, rest), None)
    assert told in missing.value.detail


async def test_a_registry_with_a_password_opens_for_those_who_have_it(
    locked_registry: Registry, asking: HttpImageRegistry
) -> None:
    pushed = locked_registry.push("acme/secret", "1")
    wanted = image(locked_registry, "acme/secret:1")
    assert await asking.look(wanted, access(locked_registry)) == ImageFound(pushed)
    with pytest.raises(RegistryRefused, match="to nobody without credentials") as refused:
        await asking.look(wanted, None)
    assert "registry_username" in (refused.value.advice or "")
    with pytest.raises(RegistryRefused, match="refuses these credentials") as refused:
        await asking.look(wanted, access(locked_registry, "a guess"))
    assert "a guess" not in f"{refused.value.detail} {refused.value.advice}"


async def test_a_registry_with_tokens_is_asked_with_one_that_it_takes(
    token_registry: Registry, tokens: TokenServer, asking: HttpImageRegistry
) -> None:
    public = token_registry.push("public/app", "1")
    private = token_registry.push("private/app", "1")
    assert await asking.look(image(token_registry, "public/app:1"), None) == ImageFound(public)
    asked = tokens.asked[-1]
    assert (asked["service"], asked["scope"]) == ("registry.test", "repository:public/app:pull")
    wanted = image(token_registry, "private/app:1")
    assert await asking.look(wanted, access(token_registry)) == ImageFound(private)
    with pytest.raises(RegistryRefused, match="to nobody without credentials"):
        await asking.look(wanted, None)
    with pytest.raises(RegistryRefused, match="refuses these credentials"):
        await asking.look(wanted, access(token_registry, "a guess"))
    with pytest.raises(ImageMissing):
        await asking.look(image(token_registry, "public/app:2"), None)
