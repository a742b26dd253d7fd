"""Tells the Hub's errors apart, since each asks something else of the user.

The Hub hides what one may not see: without a token a private repository and a missing one answer the same, so
the advice names both.
"""

from __future__ import annotations

import httpx2  # what huggingface_hub speaks HTTP with; its transport errors come through as they are
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SafetensorsParsingError,
)

# Public, but loaded lazily in a way that mypy does not see as an export.
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

from moorage.domain.model import HubModel
from moorage.errors import (
    HubTokenRefused,
    HubUnavailable,
    ModelDisabled,
    ModelGated,
    ModelMissing,
    ModelPrivate,
    ModelUnreadable,
    Problem,
    RevisionMissing,
)

RETRY_SECONDS = 5.0  # when the Hub does not say
LONGEST_RETRY_SECONDS = 300.0  # the Hub counts in windows of five minutes


def told(error: Exception, model: HubModel, *, with_token: bool) -> Problem:
    """The problem that an exception of huggingface_hub means for this model."""
    name = model.repo_id
    match error:
        case Problem():
            return error
        case GatedRepoError():  # a RepositoryNotFoundError too: must come first
            return gated(name, with_token=with_token)
        case RevisionNotFoundError():
            return RevisionMissing(
                f"{name} has no revision {model.revision}.",
                advice="Name a branch, a tag or a commit of the repository, or leave revision out.",
            )
        case DisabledRepoError():
            return disabled(name)
        case HFValidationError():
            return ModelMissing(
                f"{name!r} cannot be the id of a repository.", advice="Ids have the form owner/name."
            )
        case SafetensorsParsingError():
            return ModelUnreadable(
                f"{name} has a safetensors file whose header cannot be read.",
                advice="Check the upload: the file is cut off, or it is no safetensors file.",
            )
        case HfHubHTTPError():
            return _by_status(error, model, with_token=with_token)
        case httpx2.HTTPError() | OSError():
            return HubUnavailable(
                "The model Hub does not answer.", advice="Try again soon.", retry_after=RETRY_SECONDS
            )
        case _:
            return HubUnavailable(
                "The model Hub gave an answer that cannot be understood.",
                advice="Check that MOORAGE_HUB_URL names a Hugging Face Hub; else try again later.",
                retry_after=RETRY_SECONDS,
            )


def gated(name: str, *, with_token: bool) -> ModelGated:
    if with_token:
        advice = "Accept its conditions on the Hub with the account of hf_token; approval may take time."
    else:
        advice = "Accept its conditions on the Hub, then pass a token of that account as hf_token."
    return ModelGated(f"{name} is gated: its owner must let an account in.", advice=advice)


def disabled(name: str) -> ModelDisabled:
    return ModelDisabled(f"{name} was disabled by the Hub.", advice="Choose another model.")


def _by_status(error: HfHubHTTPError, model: HubModel, *, with_token: bool) -> Problem:
    name, status = model.repo_id, error.response.status_code
    if status == 401 and with_token:
        return HubTokenRefused(
            "The Hub refuses hf_token.", advice="Make a new token with read access on the Hub and pass that."
        )
    if isinstance(error, RepositoryNotFoundError):
        return _missing(name, with_token=with_token)
    if status == 403:
        return ModelPrivate(
            f"{name} may not be read with this token.",
            advice="Give the token read access to this repository, or use another as hf_token.",
        )
    if status == 429:
        return HubUnavailable(
            "The model Hub asks us to slow down.",
            advice="Pass hf_token: accounts have a higher limit than anonymous requests.",
            retry_after=_wait(error),
        )
    return HubUnavailable(
        f"The model Hub answered with status {status}.", advice="Try again soon.", retry_after=_wait(error)
    )


def _missing(name: str, *, with_token: bool) -> ModelMissing:
    if with_token:
        return ModelMissing(
            f"{name} does not exist on the Hub, or the account of hf_token may not see it.",
            advice="Check the spelling; if it is private, use a token of an account that may read it.",
        )
    return ModelMissing(
        f"{name} does not exist on the Hub, or is private.",
        advice="Check the spelling; if it is private, pass a token that may read it as hf_token.",
    )


def _wait(error: HfHubHTTPError) -> float:
    """Seconds until the Hub will answer again, as it says itself."""
    headers = error.response.headers
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return min(float(limit.reset_in_seconds), LONGEST_RETRY_SECONDS)
    after = headers.get("Retry-After", "")
    return min(float(after), LONGEST_RETRY_SECONDS) if after.isdecimal() else RETRY_SECONDS
