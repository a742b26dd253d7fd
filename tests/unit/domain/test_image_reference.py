"""References to images: what the engines accept is accepted, with Docker's defaults, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.image_reference import ImageReference, pinned

SHA256 = "sha256:" + "0a" * 32
SHA512 = "sha512:" + "0a" * 64


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("python", "docker.io", "library/python", "latest", None),
        ("python:3.12-slim", "docker.io", "library/python", "3.12-slim", None),
        ("acme/app", "docker.io", "acme/app", "latest", None),
        ("docker.io/python", "docker.io", "library/python", "latest", None),
        ("index.docker.io/acme/app:1", "docker.io", "acme/app", "1", None),
        ("ghcr.io/acme/team/app:V_1.0-rc", "ghcr.io", "acme/team/app", "V_1.0-rc", None),
        ("GHCR.io/acme/app", "GHCR.io", "acme/app", "latest", None),
        ("registry.example:8443/app", "registry.example:8443", "app", "latest", None),
        ("registry.example:8443/app:8443", "registry.example:8443", "app", "8443", None),
        ("localhost/app", "localhost", "app", "latest", None),
        ("localhost:5000/app", "localhost:5000", "app", "latest", None),
        ("Builder/app", "Builder", "app", "latest", None),
        ("10.0.0.7/app", "10.0.0.7", "app", "latest", None),
        ("[2001:db8::1]:5000/app", "[2001:db8::1]:5000", "app", "latest", None),
        (f"acme/app@{SHA256}", "docker.io", "acme/app", None, SHA256),
        (f"acme/app:1@{SHA256}", "docker.io", "acme/app", "1", SHA256),
        (f"acme/app@{SHA512}", "docker.io", "acme/app", None, SHA512),
        ("a__b/c-d.e_f", "docker.io", "a__b/c-d.e_f", "latest", None),
        ("a---b", "docker.io", "library/a---b", "latest", None),
    ],
)
def test_a_reference_has_the_parts_that_an_engine_sees(
    text: str, registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    found = ImageReference.parse(text)
    assert found == ImageReference(registry, repository, tag, digest)
    assert ImageReference.parse(str(found)) == found
    assert found.reference == (digest or tag)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "A path"),
        ("Acme", "A path"),
        ("acme/App", "A path"),
        ("acme//app", "A path"),
        ("/app", "A path"),
        ("app/", "A path"),
        ("a___b", "A path"),
        ("a..b/c", "A registry"),
        ("-a/b", "A path"),
        ("app name", "A path"),
        ("app\n", "A path"),
        ("https://ghcr.io/acme/app", "A registry"),
        ("ghcr.io/", "A path"),
        ("registry.example:99999/app", "A registry's port"),
        ("registry.example:0/app", "A registry's port"),
        ("registry.example:x/app", "A registry"),
        ("under_score.example/app", "A registry"),
        ("app:", "A tag"),
        ("app:-x", "A tag"),
        ("app:ä", "A tag"),
        ("app:" + "x" * 129, "A tag"),
        ("app@", "A digest"),
        ("app@sha256:abc", "A digest"),
        ("app@" + SHA256.upper(), "A digest"),
        ("app@md5:" + "0" * 32, "A digest"),
        ("0a" * 32, "64 hexadecimal"),
        ("/".join(["abcdefg"] * 40), "A path has at most 255"),
    ],
)
def test_what_no_engine_would_pull_is_refused_with_its_rule(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{rule}.*\\.$"):
        ImageReference.parse(text)


@given(st.text(alphabet="aA0.-_:/@[]sha256", max_size=80))
def test_whatever_is_accepted_reads_the_same_when_it_is_written_out(text: str) -> None:
    try:
        found = ImageReference.parse(text)
    except ValueError:
        return
    assert ImageReference.parse(str(found)) == found
    assert found.registry
    assert found.repository


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("localhost:5000/a", True),
        ("127.0.0.1:5000/a", True),
        ("127.3.2.1/a", True),
        ("[::1]:5000/a", True),
        ("localhost.example/a", False),
        ("127.0.0.1.example/a", False),
        ("a", False),
    ],
)
def test_only_this_machine_is_loopback(text: str, loopback: bool) -> None:
    assert ImageReference.parse(text).is_loopback is loopback


def test_an_image_is_pinned_once() -> None:
    assert pinned("acme/app:1", SHA256) == f"acme/app:1@{SHA256}"
    assert pinned(f"acme/app@{SHA256}", SHA256) == f"acme/app@{SHA256}"
