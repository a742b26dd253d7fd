"""What the environment may say of a cache, and what is said when it may not."""

from __future__ import annotations

import pytest

from moorage_worker.cache.errors import CacheSettingsError
from moorage_worker.cache.settings import CacheScope, CacheSettings

PRIVATE = {
    "MOORAGE_CACHE_SCOPE": "private",
    "MOORAGE_CACHE_URL": "s3://models-of-ours/a/b/",
    "MOORAGE_CACHE_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "MOORAGE_CACHE_SECRET_ACCESS_KEY": "very-secret",
    "MOORAGE_CACHE_ENDPOINT_URL": "https://account.r2.example.com/",
}
SHARED = {
    "MOORAGE_CACHE_SCOPE": "shared",
    "MOORAGE_CACHE_MANIFEST_URL": "https://moorage.example.com/v1/workers/mrg-x/cache",
    "MOORAGE_CALLBACK_SECRET": "whsec_dmVyeS1zZWNyZXQtaW5kZWVk",
}


def test_nothing_said_is_no_cache() -> None:
    assert CacheSettings.read({}) == CacheSettings.read({"MOORAGE_CACHE_SCOPE": " off "}) == CacheSettings()


def test_private() -> None:
    settings = CacheSettings.read(PRIVATE)
    assert settings.scope is CacheScope.PRIVATE
    assert settings.bucket is not None
    assert settings.bucket.url == "s3://models-of-ours/a/b"
    assert settings.bucket.endpoint_url == "https://account.r2.example.com"
    assert settings.manifest is None
    aws = CacheSettings.read({**PRIVATE, "MOORAGE_CACHE_ENDPOINT_URL": ""}).bucket
    assert aws is not None
    assert aws.endpoint_url is None


def test_shared_has_no_keys() -> None:
    settings = CacheSettings.read({**PRIVATE, **SHARED})
    assert settings.bucket is None
    assert settings.manifest is not None
    assert settings.manifest.url == SHARED["MOORAGE_CACHE_MANIFEST_URL"]


@pytest.mark.parametrize("environ", [PRIVATE, SHARED])
def test_no_repr_tells_a_secret(environ: dict[str, str]) -> None:
    told = repr(CacheSettings.read(environ))
    assert "very-secret" not in told
    assert "dmVyeS1z" not in told


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        (PRIVATE, "MOORAGE_CACHE_URL"),
        (PRIVATE, "MOORAGE_CACHE_ACCESS_KEY_ID"),
        (PRIVATE, "MOORAGE_CACHE_SECRET_ACCESS_KEY"),
        (SHARED, "MOORAGE_CACHE_MANIFEST_URL"),
        (SHARED, "MOORAGE_CALLBACK_SECRET"),
    ],
)
def test_what_is_missing_is_named(environ: dict[str, str], name: str) -> None:
    with pytest.raises(CacheSettingsError, match=f"{name} must be set when MOORAGE_CACHE_SCOPE is") as caught:
        CacheSettings.read({**environ, name: "  "})
    assert caught.value.variable == name


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("MOORAGE_CACHE_SCOPE", "public", "must be off, private or shared, not 'public'"),
        ("MOORAGE_CACHE_URL", "https://bucket/prefix", "must begin with s3://"),
        ("MOORAGE_CACHE_URL", "S3://bucket/prefix", "must begin with s3://"),
        ("MOORAGE_CACHE_URL", "s3://", "names no valid bucket"),
        ("MOORAGE_CACHE_URL", "s3://My_Bucket/x", "names no valid bucket"),
        ("MOORAGE_CACHE_URL", "s3://bucket/a//b", "has a prefix with empty parts"),
        ("MOORAGE_CACHE_URL", "s3://bucket/../b", "dots alone"),
        ("MOORAGE_CACHE_URL", "s3://bucket/a*", "wildcards"),
        ("MOORAGE_CACHE_URL", "s3://bucket/a\ncp x y", "wildcards"),
        ("MOORAGE_CACHE_ENDPOINT_URL", "r2.example.com", "must be an http:// or https:// URL"),
        ("MOORAGE_CACHE_ENDPOINT_URL", "ftp://r2.example.com", "must be an http:// or https:// URL"),
        (
            "MOORAGE_CACHE_ENDPOINT_URL",
            "https://user:very-secret@r2.example.com",
            "must not hold a user name",
        ),
        ("MOORAGE_CACHE_MANIFEST_URL", "file:///etc/passwd", "must be an http:// or https:// URL"),
        ("MOORAGE_CALLBACK_SECRET", "whsec_very-secret!", "must be whsec_ and base64"),
    ],
)
def test_what_is_wrong_is_named_with_its_rule(name: str, value: str, rule: str) -> None:
    environ = {**PRIVATE, **SHARED, "MOORAGE_CACHE_SCOPE": "private" if name in PRIVATE else "shared"}
    with pytest.raises(CacheSettingsError) as caught:
        CacheSettings.read({**environ, name: value})
    assert str(caught.value).startswith(f"{name} ")
    assert rule in str(caught.value)
    assert "very-secret" not in str(caught.value)
