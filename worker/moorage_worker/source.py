"""Brings a model to local disk: a folder as it is, or exactly the needed files of a Hub repository.

What is whole on this disk is used as it is; else the model cache is asked, where there is one, then the Hub.
A revision that is a commit needs no Hub at all when a cache has it. The Hub client keeps whole files only: it
writes beside and renames, and checks a cached snapshot against the commit's file list. So a download that was
cut off is taken up again and never read as whole, and a process that restarts while the Hub is down starts
from its cache.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from moorage_worker.cache.layout import Marker, ModelKey, has_weights
from moorage_worker.cache.model_cache import Choice, ModelCache
from moorage_worker.cache.progress import Progress, quiet, watched, written_bytes
from moorage_worker.cache.settings import CacheScope
from moorage_worker.engines.catalog import available_engines
from moorage_worker.errors import LoadFailed, cause_line
from moorage_worker.model_folder import ModelFolder
from moorage_worker.model_layout import choose_engine, files_needed
from moorage_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between tries while the Hub cannot be reached


COPIES = "moorage"  # folder for copies from a model cache, beside the Hub client's own
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on disk, the engine that will run it, and its version (a commit, or `local`).

    `from_cache` when nothing of it came from the Hub now. `after_ready` is work to do once the model answers:
    it blocks, and belongs in a thread of its own.
    """

    folder: ModelFolder
    engine: str
    version: str
    from_cache: bool = False
    after_ready: Callable[[], None] | None = None


def fetch(settings: WorkerSettings, progress: Progress = quiet) -> LocalModel:
    """Make the model's files local. Blocks; raises LoadFailed with the cause."""
    folder = Path(settings.model)
    if folder.is_dir():
        model = ModelFolder(folder.resolve())
        return LocalModel(model, choose_engine(model.files(), settings.engine, available_engines()), "local")
    if folder.is_absolute() or settings.model.startswith("."):
        raise LoadFailed(f"there is no folder {settings.model}")
    return _fetch_repository(settings, progress)


def _fetch_repository(settings: WorkerSettings, progress: Progress) -> LocalModel:
    # Imported here: slow to import, and no local model needs it.
    from httpx2 import HTTPError
    from huggingface_hub.errors import HFValidationError, RevisionResolutionError

    give_up_at, pause = time.monotonic() + settings.hub_patience, FIRST_PAUSE
    while True:
        try:
            return _bring(settings, progress)
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


def _bring(settings: WorkerSettings, progress: Progress) -> LocalModel:
    model = ModelKey(settings.model, _commit(settings))
    cache = _model_cache(settings)
    wanted = _wanted_of_cached_tree(settings, model)
    if wanted is not None and _is_whole(settings, model, wanted):
        return _from_hub(settings, model, wanted, cache, from_cache=True)
    if cache is not None:
        found = cache.find(model, partial(_choose, settings), progress)
        if found is not None:
            keep = None if found.fresh else _keeping(cache, model, found.engine, found.folder, found.paths)
            return LocalModel(ModelFolder(found.folder), found.engine, model.commit, True, keep)
    wanted = wanted or _wanted(settings, _listing(settings, model))
    _download(settings, model, wanted, progress)
    return _from_hub(settings, model, wanted, cache, from_cache=False)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What an engine reads of a repository: sizes in bytes by path."""

    engine: str
    sizes: Mapping[str, int]


def _commit(settings: WorkerSettings) -> str:
    """The commit that the revision stands for; asks the Hub unless it is one."""
    from huggingface_hub import HfApi

    if settings.revision is not None and _COMMIT.fullmatch(settings.revision):
        return settings.revision
    resolved = HfApi().resolve_revision(
        settings.model, revision=settings.revision, cache_dir=settings.cache_dir
    )
    return str(resolved.resolved)


def _model_cache(settings: WorkerSettings) -> ModelCache | None:
    from huggingface_hub.constants import HF_HOME

    if settings.cache.scope is CacheScope.OFF:
        return None
    return ModelCache(settings.cache, (settings.cache_dir or Path(HF_HOME)) / COPIES)


def _choose(settings: WorkerSettings, marker: Marker) -> Choice | None:
    """What to load of a cached copy; None when it was made for an engine that is not ours."""
    sizes = marker.sizes
    try:
        wanted = _wanted(settings, sizes)
    except LoadFailed:
        return None
    if (marker.engines and wanted.engine not in marker.engines) or not has_weights(wanted.sizes):
        return None
    return Choice(wanted.engine, tuple(wanted.sizes))


def _keeping(
    cache: ModelCache | None, model: ModelKey, engine: str, folder: Path, paths: Iterable[str]
) -> Callable[[], None] | None:
    """Work that writes these files to the cache, where it may be written."""
    if cache is None or not cache.writable:
        return None
    return partial(cache.keep, model, engine, {path: folder / path for path in paths})


# -- the Hub ------------------------------------------------------------------------------------------


def _wanted(settings: WorkerSettings, sizes: Mapping[str, int]) -> _Wanted:
    engine = choose_engine(sizes, settings.engine, available_engines())
    return _Wanted(engine, {path: sizes[path] for path in files_needed(engine, sizes)})


def _wanted_of_cached_tree(settings: WorkerSettings, model: ModelKey) -> _Wanted | None:
    """None when the Hub's client does not remember what the commit holds."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(model.repo_id, revision=model.commit, cache_dir=settings.cache_dir)
    except CachedRepoTreeNotFoundError:
        return None
    return _wanted(settings, {file.path: file.size for file in tree})


def _listing(settings: WorkerSettings, model: ModelKey) -> dict[str, int]:
    from huggingface_hub import HfApi, RepoFile

    tree = HfApi().list_repo_tree(model.repo_id, revision=model.commit, recursive=True)
    return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}


def _is_whole(settings: WorkerSettings, model: ModelKey, wanted: _Wanted) -> bool:
    folder = _snapshot(settings, model)
    local = [(folder / path, size) for path, size in wanted.sizes.items()]
    return all(path.is_file() and path.stat().st_size == size for path, size in local)


def _repository_folder(settings: WorkerSettings, model: ModelKey) -> Path:
    """Where the Hub's client keeps a repository."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=model.repo_id, repo_type="model")
    return (settings.cache_dir or Path(HF_HUB_CACHE)) / name


def _snapshot(settings: WorkerSettings, model: ModelKey) -> Path:
    return _repository_folder(settings, model) / "snapshots" / model.commit


def _download(settings: WorkerSettings, model: ModelKey, wanted: _Wanted, progress: Progress) -> None:
    from huggingface_hub import snapshot_download

    started = time.monotonic()
    blobs = _repository_folder(settings, model) / "blobs"
    total, there = sum(wanted.sizes.values()), written_bytes(blobs)
    with watched(lambda: written_bytes(blobs) - there, progress, before=0, total=total):
        snapshot_download(
            model.repo_id,
            revision=model.commit,
            allow_patterns=list(wanted.sizes),
            cache_dir=settings.cache_dir,
        )
    log.info(
        "fetched %d files of %s at %s in %.2f s",
        len(wanted.sizes),
        model.repo_id,
        model.commit,
        time.monotonic() - started,
    )


def _from_hub(
    settings: WorkerSettings, model: ModelKey, wanted: _Wanted, cache: ModelCache | None, *, from_cache: bool
) -> LocalModel:
    folder = _snapshot(settings, model)
    keep = _keeping(cache, model, wanted.engine, folder, wanted.sizes)
    return LocalModel(ModelFolder(folder), wanted.engine, model.commit, from_cache, keep)


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
