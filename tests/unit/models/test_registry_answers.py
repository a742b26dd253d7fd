"""What a registry's answers mean: headers of any form are read, and none of them breaks the reading."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.adapters.registry_answers import (
    Challenge,
    challenges,
    digest_of,
    is_manifest,
    is_worth_a_get,
    refusal,
    token_of,
    token_refusal,
)
from moorage.domain.image_reference import ImageReference
from moorage.errors import ImageMissing, RegistryRefused, RegistrySilent
from moorage.ports.outside import OutgoingAnswer

IMAGE = ImageReference.parse("ghcr.io/acme/app:1")
MANIFEST = "application/vnd.oci.image.index.v1+json"
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (
            'Bearer realm="https://a.io/token",service="registry docker io",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://a.io/token",
                        "service": "registry docker io",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('BASIC Realm="a \\"b\\""', [("basic", {"realm": 'a "b"'})]),
        (
            "Bearer realm=https://a/b, Basic realm=c",
            [("bearer", {"realm": "https://a/b"}), ("basic", {"realm": "c"})],
        ),
        ("Basic", [("basic", {})]),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("Bearer realm=", [("bearer", {"realm": ""})]),
        ('realm="x"', []),
        ("", []),
    ],
)
def test_challenges_are_read_as_the_standard_writes_them(
    header: str, found: list[tuple[str, dict[str, str]]]
) -> None:
    assert challenges(header) == tuple(Challenge(scheme, parameters) for scheme, parameters in found)


@given(st.text(alphabet='Bearer realm=",\\ x\t', max_size=60) | st.text(max_size=60))
def test_no_header_breaks_the_reading(header: str) -> None:
    assert all(challenge.scheme == challenge.scheme.lower() for challenge in challenges(header))


@given(st.integers(100, 599), st.binary(max_size=60), st.booleans())
def test_every_answer_means_something(status: int, body: bytes, with_access: bool) -> None:
    answer = OutgoingAnswer(status, {}, body)
    meant = refusal(IMAGE, answer, with_access=with_access)
    assert isinstance(meant, (ImageMissing, RegistryRefused, RegistrySilent))
    assert meant.detail.startswith("ghcr.io ")
    assert isinstance(meant, RegistryRefused) == (status in (401, 403))
    if status < 400 or status >= 500:
        assert isinstance(meant, RegistrySilent), "only a refusal says something of the image"
    told = token_refusal(IMAGE, answer, with_access=with_access)
    assert isinstance(told, RegistryRefused if status in (401, 403) else RegistrySilent)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_token_is_a_word_that_fits_into_a_header(body: object) -> None:
    token = token_of(OutgoingAnswer(200, {}, json.dumps(body).encode()))
    assert token is None or token.isprintable()


def test_a_digest_is_the_registry_s_or_of_the_whole_body() -> None:
    named = OutgoingAnswer(200, {"content-type": MANIFEST, "docker-content-digest": DIGEST}, b"")
    assert digest_of(named, "HEAD") == DIGEST
    assert not is_worth_a_get(named)
    unnamed = OutgoingAnswer(
        200, {"content-type": f"{MANIFEST}; charset=utf-8", "content-length": "2"}, b"{}"
    )
    assert is_manifest(unnamed)
    assert is_worth_a_get(unnamed)
    assert digest_of(unnamed, "HEAD") is None
    assert (
        digest_of(unnamed, "GET") == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
    cut = OutgoingAnswer(200, {"content-type": MANIFEST, "content-length": "3"}, b"{}")
    assert digest_of(cut, "GET") is None
    strange = OutgoingAnswer(200, {"content-type": MANIFEST, "docker-content-digest": "sha256:x"}, b"")
    assert digest_of(strange, "HEAD") is None
