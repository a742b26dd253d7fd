"""Every error that may cross a floor of the house, on one screen.

Two families. `Problem`s are told to a user: they carry the HTTP status, a stable code, and the fields at
fault, so that a surface only has to print them. `ProviderError`s are told to the engine: the class says what
to do next, and no exception of a provider's SDK leaves its adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class FieldError:
    """One broken rule: `field` is the path in the request (`body.env`), `rule` its stable name."""

    field: str
    rule: str
    message: str


class MoorageError(Exception):
    """Root of the tree."""


# -- told to a user ---------------------------------------------------------------------------------


class Problem(MoorageError):
    """An RFC 9457 problem. `detail` says what happened, `advice` what to do about it."""

    status = 500
    code = "internal_error"
    title = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        advice: str | None = None,
        errors: Sequence[FieldError] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.advice = advice
        self.errors = tuple(errors)
        self.retry_after = retry_after

    @classmethod
    def at(
        cls, field: str, rule: str, message: str, *, code: str | None = None, advice: str | None = None
    ) -> Self:
        """A problem with exactly one field at fault."""
        return cls(message, code=code, advice=advice, errors=(FieldError(field, rule, message),))

    def members(self) -> dict[str, object]:
        """As the members of a problem document (RFC 9457)."""
        return {
            "type": f"urn:moorage:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "advice": self.advice,
            "errors": [{"field": e.field, "rule": e.rule, "message": e.message} for e in self.errors],
        }


class Malformed(Problem):
    status, code, title = 400, "malformed_request", "Malformed request"


class Invalid(Problem):
    status, code, title = 422, "invalid_request", "Invalid request"


class Unauthenticated(Problem):
    status, code, title = 401, "unauthenticated", "Authentication required"


class Forbidden(Problem):
    status, code, title = 403, "forbidden", "Not allowed"


class NotFound(Problem):
    status, code, title = 404, "not_found", "Not found"


class MethodNotAllowed(Problem):
    status, code, title = 405, "method_not_allowed", "Method not allowed"


class Clash(Problem):
    """The request contradicts what is stored (a taken name, a reused idempotency key)."""

    status, code, title = 409, "conflict", "Conflict"


class TooLarge(Problem):
    status, code, title = 413, "body_too_large", "Body too large"


class UnsupportedMediaType(Problem):
    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class TooManyRequests(Problem):
    status, code, title = 429, "too_many_requests", "Too many requests"


class BadGateway(Problem):
    status, code, title = 502, "bad_gateway", "The model's endpoint failed"


class Unavailable(Problem):
    status, code, title = 503, "unavailable", "Not available now"


# -- model hub: which of these it is decides what the user must do ---------------------------------------


class ModelError(Invalid):
    """The Hub has answered, and the model cannot be used as asked."""

    title = "The model cannot be used"
    field = "hf_model_id"

    def __init__(self, detail: str, *, advice: str | None = None) -> None:
        super().__init__(detail, advice=advice, errors=(FieldError(self.field, self.code, detail),))


class ModelMissing(ModelError):
    code = "model_not_found"


class ModelGated(ModelError):
    code = "model_gated"


class ModelPrivate(ModelError):
    code = "model_private"


class ModelDisabled(ModelError):
    code = "model_disabled"


class RevisionMissing(ModelError):
    code = "revision_not_found"
    field = "revision"


class ModelUnreadable(ModelError):
    """The repository exists but holds no weights that a runtime of ours can serve, or broken metadata."""

    code = "model_unreadable"


class HubTokenRefused(ModelError):
    code = "hf_token_refused"
    field = "hf_token"


class HubUnavailable(Unavailable):
    """The Hub did not answer, or asked us to slow down. Retrying is right."""

    code = "hub_unavailable"


# -- registry of container images -------------------------------------------------------------------------


class RegistryError(MoorageError):
    """What a registry's answer, or its silence, means for an image. In words fit for its owner."""

    def __init__(self, detail: str, *, advice: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.advice = advice


class ImageMissing(RegistryError):
    """The registry has answered that there is no such image."""


class RegistryRefused(RegistryError):
    """The registry does not let us look at the image with these credentials, or without any."""


class RegistrySilent(RegistryError):
    """Whether the image exists could not be found out: no answer, no answer of a registry's, or a host that
    we may not connect to."""


# -- store --------------------------------------------------------------------------------------------


class StoreError(MoorageError):
    pass


class StoreUnavailable(StoreError):
    """It cannot be reached, or does not answer in time. What was asked may have been done; asking again later
    is right."""

    @property
    def problem(self) -> Unavailable:
        """As a user is told, who need not know where the store is."""
        return Unavailable(
            "The store that keeps everything cannot be reached now.",
            code="store_unavailable",
            advice="Try again. A POST with the same Idempotency-Key is done once.",
            retry_after=5.0,
        )


class StoreUnusable(StoreError):
    """It was reached and can never be used as it is: a wrong address, no permission, a schema of a newer
    release. The message says what to do."""


class AlreadyExists(StoreError):
    """An insert met a row with the same id or the same unique key; nothing of its unit was written."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"{kind} {key} already exists")
        self.kind = kind
        self.key = key


class StaleWrite(StoreError):
    """A compare-and-set lost: the row changed, or the lease is no longer ours; nothing was written."""


# -- told to the engine by a provider ---------------------------------------------------------------------


class ProviderError(MoorageError):
    """What the provider said, in words fit for the user; the class says what to do."""

    def __init__(self, detail: str, *, advice: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.advice = advice


class Retry(ProviderError):
    """Passing trouble: try the same call again, not before `after` seconds."""

    def __init__(self, detail: str, *, after: float = 1.0, advice: str | None = None) -> None:
        super().__init__(detail, advice=advice)
        self.after = after


class NoCapacity(ProviderError):
    """The offer cannot be had now: try the next."""


class QuotaExceeded(ProviderError):
    """The account may not have more; `limit` is the number the provider named, if any."""

    def __init__(self, detail: str, *, limit: int | None = None, advice: str | None = None) -> None:
        super().__init__(detail, advice=advice)
        self.limit = limit


class Rejected(ProviderError):
    """The provider will never accept this; `fields` says which parts of the request are at fault."""

    def __init__(self, detail: str, *, fields: Sequence[FieldError] = (), advice: str | None = None) -> None:
        super().__init__(detail, advice=advice)
        self.fields = tuple(fields)


class Unauthorized(ProviderError):
    """The credentials are refused."""


class PermissionMissing(ProviderError):
    """The credentials are accepted, and may not do this."""


class Gone(ProviderError):
    """What the handle named does not exist (any more)."""


class Conflict(ProviderError):
    """Somebody else changed it meanwhile: look again, then decide again."""


# -- outgoing guard -----------------------------------------------------------------------------------------


class OutgoingRefused(MoorageError):
    """The guard will not connect there; `rule` is the stable name of the rule that the URL breaks."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule
        self.detail = detail


class OutgoingFailed(MoorageError):
    """The connection or the exchange failed; the receiver may or may not have seen the request."""
