"""Where a load looks before it asks the Hub: this machine's disk, then the bucket; and what it leaves behind.

A cache never makes a load fail. Whatever is wrong with it is logged with what to do, and the Hub is asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from moorage_worker.cache.bucket import ModelBucket
from moorage_worker.cache.disk import DiskCache, Filling
from moorage_worker.cache.errors import CopyBroken, StorageTrouble, ToolMissing
from moorage_worker.cache.layout import FileEntry, Marker, ModelKey
from moorage_worker.cache.progress import Progress, quiet, watched
from moorage_worker.cache.s5cmd import S5cmd
from moorage_worker.cache.settings import BucketPlace, CacheSettings, ManifestPlace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine for a copy, and the files of it that the engine reads."""

    engine: str
    paths: Sequence[str]


Choose = Callable[[Marker], Choice | None]  # None: nothing here can run what this copy holds
Bring = Callable[[Sequence[FileEntry], Filling], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A whole copy on this disk. `fresh` when it has just come from the bucket."""

    folder: Path
    engine: str
    paths: Sequence[str]
    fresh: bool


class ModelCache:
    """The caches of one worker. All blocks."""

    def __init__(self, settings: CacheSettings, root: Path) -> None:
        """`root` is the folder for copies on this disk."""
        self._settings = settings
        self._disk = DiskCache(root)

    def find(self, model: ModelKey, choose: Choose, progress: Progress = quiet) -> Found | None:
        """A copy to load from, fetched if need be; None when there is none, or none can be had."""
        try:
            return self._on_disk(model, choose) or self._from_afar(model, choose, progress)
        except (StorageTrouble, OSError) as error:
            log.warning("model cache not used, the Hub is asked instead: %s", error)
            return None

    def keep(self, model: ModelKey, engine: str, files: Mapping[str, Path]) -> None:
        """Upload what a load from the Hub brought, in the private scope. Trouble is logged."""
        if self._settings.bucket is None:
            return
        started = time.monotonic()
        try:
            written = fill_bucket(self._settings.bucket, model, engine, files, gentle=True)
        except (StorageTrouble, OSError) as error:
            log.warning("model cache not filled, the next start will try again: %s", error)
        else:
            took = time.monotonic() - started
            done = f"filled in {took:.2f} s" if written else "is complete already"
            log.info("model cache %s: %s", done, f"{self._settings.bucket.url}/{model.folder}")

    @property
    def writable(self) -> bool:
        return self._settings.bucket is not None

    def _on_disk(self, model: ModelKey, choose: Choose) -> Found | None:
        marker = self._disk.marker(model)
        choice = None if marker is None else choose(marker)
        return (
            None
            if choice is None
            else Found(self._disk.folder(model), choice.engine, choice.paths, fresh=False)
        )

    def _from_afar(self, model: ModelKey, choose: Choose, progress: Progress) -> Found | None:
        if self._settings.bucket is not None:
            return self._from_bucket(self._settings.bucket, model, choose, progress)
        if self._settings.manifest is not None:
            return self._from_manifest(self._settings.manifest, model, choose, progress)
        return None

    def _from_bucket(
        self, place: BucketPlace, model: ModelKey, choose: Choose, progress: Progress
    ) -> Found | None:
        bucket = ModelBucket(place)
        state = bucket.look(model)
        if state.marker is None:
            log.info("%s is not in the model cache: %s", model.folder, "; ".join(state.faults))
            return None
        if state.faults:
            raise CopyBroken(f"{bucket.url(model)}: {'; '.join(state.faults[:3])}")

        def bring(files: Sequence[FileEntry], filling: Filling) -> None:
            bucket.download(model, files, filling)

        return self._fill(state.marker, choose, bring, progress)

    def _from_manifest(
        self, place: ManifestPlace, model: ModelKey, choose: Choose, progress: Progress
    ) -> Found | None:
        # Imported here: its HTTP client is slow to import, and most workers have no shared cache.
        try:
            from moorage_worker.cache.shared import SharedCache
        except ImportError as error:
            raise ToolMissing(f"{error.name}, which the shared cache needs, is not installed") from error

        with closing(SharedCache(place)) as shared:
            manifest = shared.manifest()
            if manifest is None:
                log.info("%s is not in the shared model cache", model.folder)
                return None

            def bring(files: Sequence[FileEntry], filling: Filling) -> None:
                shared.download(manifest, files, filling)

            return self._fill(Marker(model, manifest.files), choose, bring, progress)

    def _fill(self, there: Marker, choose: Choose, bring: Bring, progress: Progress) -> Found | None:
        """Bring what the engine needs of a copy that is elsewhere to this disk."""
        choice = choose(there)
        if choice is None:
            log.info("the cached copy of %s is for another engine", there.model.folder)
            return None
        started, model = time.monotonic(), there.model
        sizes = there.sizes
        wanted = Marker(model, tuple(FileEntry(p, sizes[p]) for p in choice.paths), (choice.engine,))
        with self._disk.filling(model) as filling:
            missing = filling.missing(wanted.files)
            before = wanted.total - sum(file.size for file in missing)
            with watched(filling.arrived, progress, before=before, total=wanted.total):
                if missing:
                    bring(missing, filling)
            filling.finish(wanted)
        log.info(
            "fetched %d files (%d bytes) of %s from the model cache in %.2f s",
            len(missing),
            wanted.total - before,
            model.folder,
            time.monotonic() - started,
        )
        return Found(self._disk.folder(model), choice.engine, choice.paths, fresh=True)


def fill_bucket(
    place: BucketPlace,
    model: ModelKey,
    engine: str,
    files: Mapping[str, Path],
    on_file: Callable[[FileEntry], None] = lambda _: None,
    *,
    gentle: bool = False,
) -> bool:
    """Write a copy of these local files, by path in the repository; False when it is whole already.

    Raises StorageTrouble or OSError.
    """
    listed = tuple(FileEntry(path, local.stat().st_size) for path, local in sorted(files.items()))
    bucket = ModelBucket(place, S5cmd(place, gentle=gentle))
    return bucket.upload(Marker(model, listed, (engine,)), files, on_file)
