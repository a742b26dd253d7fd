"""Brings a model to local disk: a folder as it is, or exactly the needed files of a Hub repository.

The Hub client keeps whole files only: it writes beside and renames, and checks a cached snapshot against the
commit's file list. So a download that was cut off is taken up again and never read as whole, and a process
that restarts while the Hub is down starts from its cache.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from moorage_worker.engines.catalog import available_engines
from moorage_worker.errors import LoadFailed, cause_line
from moorage_worker.model_folder import ModelFolder
from moorage_worker.model_layout import choose_engine, files_needed
from moorage_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between tries while the Hub cannot be reached


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on disk, the engine that will run it, and its version (a commit, or `local`)."""

    folder: ModelFolder
    engine: str
    version: str


def fetch(settings: WorkerSettings) -> LocalModel:
    """Make the model's files local. Blocks; raises LoadFailed with the cause."""
    folder = Path(settings.model)
    if folder.is_dir():
        model = ModelFolder(folder.resolve())
        return LocalModel(model, choose_engine(model.files(), settings.engine, available_engines()), "local")
    if folder.is_absolute() or settings.model.startswith("."):
        raise LoadFailed(f"there is no folder {settings.model}")
    return _fetch_from_hub(settings)


def _fetch_from_hub(settings: WorkerSettings) -> LocalModel:
    # Imported here: slow to import, and no local model needs it.
    from httpx2 import HTTPError
    from huggingface_hub.errors import HFValidationError, RevisionResolutionError

    give_up_at, pause = time.monotonic() + settings.hub_patience, FIRST_PAUSE
    while True:
        try:
            return _download(settings)
        except (OSError, HTTPError, HFValidationError, RevisionResolutionError) as error:
            cause = _refusal(error, settings)
            if cause is not None:
                raise LoadFailed(cause) from error
            cause = f"{_name(settings)} cannot be fetched from the Hub: {cause_line(error)}"
            if time.monotonic() + pause > give_up_at:
                raise LoadFailed(cause) from error
            log.warning("%s; trying again in %.0f s", cause, pause)
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _download(settings: WorkerSettings) -> LocalModel:
    from huggingface_hub import HfApi, snapshot_download

    started = time.monotonic()
    api = HfApi()
    commit = str(
        api.resolve_revision(
            settings.model, revision=settings.revision, cache_dir=settings.cache_dir
        ).resolved
    )
    files = _list_files(settings, commit)
    engine = choose_engine(files, settings.engine, available_engines())
    wanted = files_needed(engine, files)
    folder = snapshot_download(
        settings.model, revision=commit, allow_patterns=wanted, cache_dir=settings.cache_dir
    )
    log.info(
        "fetched %d files of %s at %s in %.2f s",
        len(wanted),
        settings.model,
        commit,
        time.monotonic() - started,
    )
    return LocalModel(ModelFolder(Path(folder)), engine, commit)


def _list_files(settings: WorkerSettings, commit: str) -> Collection[str]:
    from huggingface_hub import HfApi, RepoFile
    from huggingface_hub import get_cached_repo_tree as cached_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return {f.path for f in cached_tree(settings.model, revision=commit, cache_dir=settings.cache_dir)}
    except CachedRepoTreeNotFoundError:
        tree = HfApi().list_repo_tree(settings.model, revision=commit, recursive=True)
        return {entry.path for entry in tree if isinstance(entry, RepoFile)}


def _name(settings: WorkerSettings) -> str:
    return f"{settings.model} at revision {settings.revision}" if settings.revision else settings.model


def _refusal(error: Exception, settings: WorkerSettings) -> str | None:
    """What the Hub said for good, in words; None for trouble that may pass."""
    from huggingface_hub import errors

    model = _name(settings)
    causes: list[tuple[type[Exception], str]] = [
        # The order matters: a gated repository is a kind of repository that is not found.
        (errors.GatedRepoError, f"{model} is gated: ask for access on its page and set HF_TOKEN"),
        (errors.DisabledRepoError, f"{model} is disabled on the Hub"),
        (
            errors.RepositoryNotFoundError,
            f"{model} is not on the Hub, or is private and HF_TOKEN does not open it",
        ),
        (errors.RevisionNotFoundError, f"{settings.model} has no revision {settings.revision}"),
        (errors.HFValidationError, f"{settings.model!r} is neither a folder nor a valid repository id"),
    ]
    return next((cause for kind, cause in causes if isinstance(error, kind)), None)
