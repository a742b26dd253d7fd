"""What can be wrong with a bucket, told apart, since each has another cure; and s5cmd's words for them.

None of these ends a load: they are logged, and the Hub is asked instead. The operator's command and the
upload of results show them to their callers.
"""

from __future__ import annotations

from collections.abc import Iterable

from moorage_worker.errors import RequestError, SettingsError, WorkerError


class CacheSettingsError(SettingsError):
    """The environment asks for a cache that cannot be."""


class StorageTrouble(WorkerError):
    """The bucket could not be used. The message says what happened, `advice` what to do."""

    advice = "Look at the storage provider's status, then try again."

    def __str__(self) -> str:
        return f"{super().__str__()}. {self.advice}"


class CredentialsRefused(StorageTrouble):
    advice = "Check the access key id and the secret access key, and that they are for this endpoint."


class BucketMissing(StorageTrouble):
    advice = "Create the bucket, or correct its name and the endpoint URL."


class PermissionMissing(StorageTrouble):
    advice = "Allow this key s3:ListBucket and s3:GetObject, and s3:PutObject where it is to write."


class EndpointUnreachable(StorageTrouble):
    advice = "Check the endpoint URL, and that this machine may connect to it."


class ObjectMissing(StorageTrouble):
    advice = "Nothing to do when it was never written."


class CopyBroken(StorageTrouble):
    """What is in the bucket is not what its marker says."""

    advice = "It is not used, and is written anew where the cache may be written."


class ToolMissing(StorageTrouble):
    advice = "Install it: pip install 'moorage-worker[s3]'."


class ResultNotStored(RequestError):
    """A result was made and could not be uploaded."""

    status, code, title = 502, "result_not_stored", "Result not stored"


# The order matters: the first that is found in an error's text says what it is.
_SIGNS: tuple[tuple[type[StorageTrouble], tuple[str, ...]], ...] = (
    (
        CredentialsRefused,
        (
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "InvalidToken",
            "NoCredentialProviders",
            "InvalidClientTokenId",
            "Unauthorized",
        ),
    ),
    (BucketMissing, ("NoSuchBucket",)),
    (ObjectMissing, ("NoSuchKey", "no object found", " not found")),
    (PermissionMissing, ("AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden")),
    (BucketMissing, ("NotFound",)),
    (
        EndpointUnreachable,
        ("RequestError", "connection refused", "no such host", "i/o timeout", "UnknownEndpoint", "EOF"),
    ),
)
_SAID: dict[type[StorageTrouble], str] = {
    CredentialsRefused: "the bucket's keys are refused",
    BucketMissing: "there is no such bucket",
    ObjectMissing: "the object is not there",
    PermissionMissing: "the bucket's keys may not do this",
    EndpointUnreachable: "the storage endpoint cannot be reached",
}


# Where several commands of one run failed, the one that explains most is told.
_TELLING = tuple(dict.fromkeys(kind for kind, _ in _SIGNS))


def trouble_of(texts: Iterable[str], where: str) -> StorageTrouble:
    """The error of a failed run of s5cmd, from the error texts it wrote. `where` is an `s3://` URL."""
    lines = [" ".join(text.split()) for text in texts]
    found = [(kind, line) for line in lines if (kind := _kind(line)) is not None]
    if not found:
        return StorageTrouble(f"{where}: s5cmd failed: {lines[0] if lines else 'it gave no reason'}")
    kind, line = min(found, key=lambda pair: _TELLING.index(pair[0]))
    return kind(f"{where}: {_SAID[kind]} ({line})")


def _kind(text: str) -> type[StorageTrouble] | None:
    return next((kind for kind, signs in _SIGNS if any(sign in text for sign in signs)), None)
