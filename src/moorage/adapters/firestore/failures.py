"""What Firestore's exceptions mean. None of them leaves the adapter."""

from __future__ import annotations

from google.api_core import exceptions
from google.auth import exceptions as auth

from moorage.adapters.firestore.address import Address
from moorage.errors import StoreError, StoreUnavailable, StoreUnusable

# Asking again may help. Of a write it is not known whether it was carried out.
PASSING = (
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.GatewayTimeout,
    exceptions.InternalServerError,
    exceptions.Unknown,
    exceptions.ResourceExhausted,
    exceptions.Cancelled,
    exceptions.RetryError,
    auth.TransportError,
    TimeoutError,
    ConnectionError,
)
# Of a write: what it was to be sure of is not so, or somebody else writes the same. Nothing was written.
MET = (
    exceptions.FailedPrecondition,
    exceptions.AlreadyExists,
    exceptions.NotFound,
    exceptions.Aborted,
)
_REFUSED = (
    exceptions.PermissionDenied,
    exceptions.Unauthenticated,
    exceptions.Forbidden,
    auth.GoogleAuthError,
)


class Conflict(Exception):
    """A batch met what somebody else wrote; nothing of it was written."""


class Unsure(StoreUnavailable):
    """No answer to a batch: it may have been written."""


def told(error: Exception, address: Address) -> StoreError:
    """The error as the port tells it. Firestore's words name no values of fields."""
    if isinstance(error, StoreError):
        return error
    words = str(getattr(error, "message", None) or error).strip() or type(error).__name__
    passing = (*PASSING, exceptions.Aborted)
    if isinstance(error, passing) or (isinstance(error, auth.GoogleAuthError) and error.retryable):
        return StoreUnavailable(f"Firestore does not answer for {address}: {words}")
    if isinstance(error, _REFUSED):
        return StoreUnusable(
            f"Firestore refuses {address}: {words}. Check the project's id, and give the service's account"
            " the role roles/datastore.user there; on a machine of your own, sign in with"
            " `gcloud auth application-default login`"
        )
    if isinstance(error, exceptions.NotFound):
        return StoreUnusable(
            f"There is no {address}: {words}. Check both ids, or create it with"
            " `gcloud firestore databases create --location=…`"
        )
    if isinstance(error, exceptions.FailedPrecondition) and "index" in words:
        return StoreUnusable(
            f"An index is missing in {address}, or is still being built: {words}. Deploy"
            " deploy/firestore.indexes.json with `firebase deploy --only firestore:indexes`"
        )
    if isinstance(error, exceptions.FailedPrecondition | exceptions.InvalidArgument):
        return StoreUnusable(
            f"Firestore cannot serve {address}: {words}. It has to be in native mode, not in Datastore mode"
        )
    return StoreError(f"Firestore could not do it in {address}: {words}")
