"""Brings a model to local disk: a folder as it is, or the files of a repository that its engine reads.

What is whole on this disk is used as it is; else the model cache is asked, where there is one, then the Hub.
A revision that is a commit needs no Hub at all when a cache has it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from moorage_worker.cache.layout import Marker, ModelKey, has_weights
from moorage_worker.cache.model_cache import Choice, ModelCache
from moorage_worker.cache.progress import Progress, quiet
from moorage_worker.cache.settings import CacheScope
from moorage_worker.engines.catalog import available_engines
from moorage_worker.errors import LoadFailed
from moorage_worker.hub import HubRepository
from moorage_worker.model_folder import ModelFolder
from moorage_worker.model_layout import choose_engine, files_needed
from moorage_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

COPIES = "moorage"  # folder for copies from a model cache, beside the Hub client's own


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


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an engine reads of a repository: sizes in bytes by path."""

    engine: str
    sizes: Mapping[str, int]


def wanted_of(
    sizes: Mapping[str, int],
    asked: str | None,
    available: Mapping[str, str | None],
    variant: str | None = None,
    dtype: str | None = None,
) -> Wanted:
    """The engine for these files, with the rules of `choose_engine`, and what it reads of them, with those of
    `files_needed`."""
    engine = choose_engine(sizes, asked, available)
    return Wanted(engine, {path: sizes[path] for path in files_needed(engine, sizes, variant, dtype)})


def fetch(settings: WorkerSettings, progress: Progress = quiet) -> LocalModel:
    """Make the model's files local. Blocks; raises LoadFailed with the cause."""
    folder = Path(settings.model)
    if folder.is_dir():
        model = ModelFolder(folder.resolve())
        return LocalModel(model, choose_engine(model.files(), settings.engine, available_engines()), "local")
    if folder.is_absolute() or settings.model.startswith("."):
        raise LoadFailed(f"there is no folder {settings.model}")
    repository = HubRepository(settings.model, settings.revision, settings.cache_dir)
    bring = partial(_bring, repository, settings, progress)
    return repository.patiently(bring, settings.hub_patience)


def _bring(repository: HubRepository, settings: WorkerSettings, progress: Progress) -> LocalModel:
    model = ModelKey(repository.repo_id, repository.commit())
    cache = _model_cache(settings)
    remembered = repository.remembered(model.commit)
    wanted = None if remembered is None else _wanted(settings, remembered)
    from_cache = wanted is not None and repository.is_whole(model.commit, wanted.sizes)
    if cache is not None and not from_cache:
        found = cache.find(model, partial(_choose, settings), progress)
        if found is not None:
            keep = None if found.fresh else _keeping(cache, model, found.engine, found.folder, found.paths)
            return LocalModel(ModelFolder(found.folder), found.engine, model.commit, True, keep)
    if wanted is None:
        wanted = _wanted(settings, repository.listing(model.commit))
    if not from_cache:
        repository.download(model.commit, wanted.sizes, progress)
    folder = repository.snapshot(model.commit)
    keep = _keeping(cache, model, wanted.engine, folder, wanted.sizes)
    return LocalModel(ModelFolder(folder), wanted.engine, model.commit, from_cache, keep)


def _wanted(settings: WorkerSettings, sizes: Mapping[str, int]) -> Wanted:
    return wanted_of(sizes, settings.engine, available_engines(), settings.variant, settings.dtype)


def _model_cache(settings: WorkerSettings) -> ModelCache | None:
    if settings.cache.scope is CacheScope.OFF:
        return None
    from huggingface_hub.constants import HF_HOME

    return ModelCache(settings.cache, (settings.cache_dir or Path(HF_HOME)) / COPIES)


def _choose(settings: WorkerSettings, marker: Marker) -> Choice | None:
    """What to load of a cached copy; None when it was made for an engine that is not ours."""
    try:
        wanted = _wanted(settings, marker.sizes)
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
