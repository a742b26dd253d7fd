"""How the sources of a model are written: a Hugging Face repository, or a container image.

The same fields are given when something is deployed and when it is registered first, under the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from moorage.domain.image_reference import FORM, ImageReference
from moorage.errors import FieldError

_REPO_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPO_ID = re.compile(rf"{_REPO_PART}(?:/{_REPO_PART})?")
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9_-])?")
_TOKEN = re.compile(r"[\x21-\x7e]{1,256}")  # it travels in a header


def hub_errors(hf_model_id: str | None, revision: str | None, hf_token: str | None) -> Iterator[FieldError]:
    if hf_model_id is not None and not _is_repo_id(hf_model_id):
        yield _error(
            "hf_model_id",
            "repo_id",
            "A Hugging Face id is owner/name: letters, digits, '.', '_' and '-', each part at most 96 long.",
        )
    if revision is not None:
        if hf_model_id is None:
            yield _error("revision", "needs_hf_model_id", "revision goes with hf_model_id.")
        elif not _REVISION.fullmatch(revision) or ".." in revision:
            yield _error("revision", "revision", "A revision is a branch, a tag or a commit id.")
    if hf_token is not None and not _TOKEN.fullmatch(hf_token):
        message = "A token has 1 to 256 visible ASCII characters, without a space or newline."
        yield _error("hf_token", "token", message)


def image_errors(container_image: str | None) -> Iterator[FieldError]:
    if container_image is None:
        return
    try:
        ImageReference.parse(container_image)
    except ValueError as error:
        yield _error("container_image", "image_reference", f"{error} {FORM}")


def _is_repo_id(text: str) -> bool:
    return _REPO_ID.fullmatch(text) is not None and "--" not in text and ".." not in text


def _error(name: str, rule: str, message: str) -> FieldError:
    return FieldError(f"body.{name}", rule, message)
