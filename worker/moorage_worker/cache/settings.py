"""Which cache a worker has, from its environment; every mistake is told by the variable's name.

Secrets are kept out of every repr: settings end up in logs and tracebacks.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit

from moorage_worker.cache.errors import CacheSettingsError

SCOPE = "MOORAGE_CACHE_SCOPE"
URL = "MOORAGE_CACHE_URL"
KEY_ID = "MOORAGE_CACHE_ACCESS_KEY_ID"
SECRET = "MOORAGE_CACHE_SECRET_ACCESS_KEY"  # noqa: S105 - the name of a variable
ENDPOINT = "MOORAGE_CACHE_ENDPOINT_URL"
MANIFEST = "MOORAGE_CACHE_MANIFEST_URL"
SIGNING = "MOORAGE_CALLBACK_SECRET"

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[\w!'()/.=+@:,-]*")  # no wildcard of s5cmd, nothing a URL would have to escape


class CacheScope(StrEnum):
    """`private` is the user's bucket, read and filled; `shared` the operator's, read only."""

    OFF = "off"
    PRIVATE = "private"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class BucketKeys:
    """What opens a bucket."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """A folder in a bucket, as `s3://bucket/prefix`, with its keys.

    `endpoint_url` is None for AWS itself, else the service's (R2, MinIO).
    """

    url: str  # without a final slash
    keys: BucketKeys
    endpoint_url: str | None = None


@dataclass(frozen=True, slots=True)
class ManifestPlace:
    """Where Moorage lists the files of the shared cache, and what the request is signed with (`whsec_…`)."""

    url: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """`bucket` is set in the private scope, `manifest` in the shared one."""

    scope: CacheScope = CacheScope.OFF
    bucket: BucketPlace | None = None
    manifest: ManifestPlace | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """From the `MOORAGE_CACHE_…` variables. Raises CacheSettingsError."""
        said = environ.get(SCOPE, "").strip() or CacheScope.OFF.value
        try:
            scope = CacheScope(said)
        except ValueError:
            raise CacheSettingsError(SCOPE, f"must be off, private or shared, not {said!r}") from None
        if scope is CacheScope.PRIVATE:
            return cls(scope, bucket=_bucket(environ))
        if scope is CacheScope.SHARED:
            url = endpoint_url(MANIFEST, _required(environ, MANIFEST, scope))
            return cls(scope, manifest=ManifestPlace(url, _signing_secret(environ, scope)))
        return cls(scope)


def _bucket(environ: Mapping[str, str]) -> BucketPlace:
    url = bucket_url(URL, _required(environ, URL, CacheScope.PRIVATE))
    keys = BucketKeys(
        _required(environ, KEY_ID, CacheScope.PRIVATE), _required(environ, SECRET, CacheScope.PRIVATE)
    )
    endpoint = environ.get(ENDPOINT, "").strip()
    return BucketPlace(url, keys, endpoint_url(ENDPOINT, endpoint) if endpoint else None)


def _signing_secret(environ: Mapping[str, str], scope: CacheScope) -> str:
    secret = _required(environ, SIGNING, scope)
    try:
        base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise CacheSettingsError(SIGNING, "must be whsec_ and base64, as Moorage gives it") from None
    return secret


def _required(environ: Mapping[str, str], variable: str, scope: CacheScope) -> str:
    value = environ.get(variable, "").strip()
    if not value:
        raise CacheSettingsError(variable, f"must be set when {SCOPE} is {scope.value}")
    return value


def bucket_url(variable: str, value: str) -> str:
    """`s3://bucket/prefix` without a final slash. Raises CacheSettingsError that names the variable."""
    if not value.startswith("s3://"):
        raise CacheSettingsError(variable, "must begin with s3://, as in s3://bucket/models")
    bucket, _, prefix = value.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise CacheSettingsError(
            variable, f"names no valid bucket: {bucket!r} (3 to 63 of a-z, 0-9, dot and hyphen)"
        )
    prefix = prefix.rstrip("/")
    if not _PREFIX.fullmatch(prefix) or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise CacheSettingsError(
            variable, "has a prefix with empty parts, dots alone, spaces or wildcards; use plain names"
        )
    return f"s3://{bucket}/{prefix}".rstrip("/")


def endpoint_url(variable: str, value: str) -> str:
    """An http URL without credentials or a final slash. Raises CacheSettingsError that names the variable."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CacheSettingsError(variable, "must be an http:// or https:// URL with a host")
    if parts.username is not None or parts.password is not None:
        raise CacheSettingsError(variable, "must not hold a user name or password")
    return value.rstrip("/")
