"""One repository of the Hub, and what its client keeps of it on this disk.

The client keeps whole files only: it writes beside and renames, and remembers the commit's file list. So a
download that was cut off is taken up again and never read as whole, and a process that restarts while the Hub
is down starts from this disk.

The client is imported where it is used: it is slow to import, and no local model needs it.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from moorage_worker.cache.progress import Progress, watched, written_bytes
from moorage_worker.errors import LoadFailed, cause_line

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between tries while the Hub cannot be reached
_COMMIT = re.compile(r"[0-9a-f]{40}")
_T = TypeVar("_T")

Sizes = Mapping[str, int]  # bytes by path in the repository


@dataclass(frozen=True, slots=True)
class HubRepository:
    """`revision` is a branch, tag or commit, None for the main one; `cache_dir` None for the client's own."""

    repo_id: str
    revision: str | None
    cache_dir: Path | None

    @property
    def name(self) -> str:
        return f"{self.repo_id} at revision {self.revision}" if self.revision else self.repo_id

    def commit(self) -> str:
        """The commit that the revision stands for; asks the Hub unless it is one."""
        from huggingface_hub import HfApi

        if self.revision is not None and _COMMIT.fullmatch(self.revision):
            return self.revision
        resolved = HfApi().resolve_revision(self.repo_id, revision=self.revision, cache_dir=self.cache_dir)
        return str(resolved.resolved)

    def remembered(self, commit: str) -> Sizes | None:
        """The commit's files as the client remembers them; None when it never saw them."""
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            tree = get_cached_repo_tree(self.repo_id, revision=commit, cache_dir=self.cache_dir)
        except CachedRepoTreeNotFoundError:
            return None
        return {file.path: file.size for file in tree}

    def listing(self, commit: str) -> Sizes:
        """The commit's files, from the Hub."""
        from huggingface_hub import HfApi, RepoFile

        tree = HfApi().list_repo_tree(self.repo_id, revision=commit, recursive=True)
        return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}

    def snapshot(self, commit: str) -> Path:
        """The folder that holds the downloaded files of a commit."""
        return self._folder() / "snapshots" / commit

    def is_whole(self, commit: str, wanted: Sizes) -> bool:
        """Whether all these files are on this disk."""
        local = [(self.snapshot(commit) / path, size) for path, size in wanted.items()]
        return all(path.is_file() and path.stat().st_size == size for path, size in local)

    def download(self, commit: str, wanted: Sizes, progress: Progress) -> None:
        """Bring these files to the snapshot folder."""
        from huggingface_hub import snapshot_download

        started, blobs = time.monotonic(), self._folder() / "blobs"
        before = written_bytes(blobs)
        with watched(lambda: written_bytes(blobs) - before, progress, before=0, total=sum(wanted.values())):
            snapshot_download(
                self.repo_id, revision=commit, allow_patterns=list(wanted), cache_dir=self.cache_dir
            )
        took = time.monotonic() - started
        log.info("fetched %d files of %s at %s in %.2f s", len(wanted), self.repo_id, commit, took)

    def patiently(self, work: Callable[[], _T], patience: float) -> _T:
        """What `work` makes of this repository. Tries again while the Hub cannot be reached, for `patience`
        seconds at most. Raises LoadFailed with the cause."""
        from httpx2 import HTTPError
        from huggingface_hub.errors import HFValidationError, RevisionResolutionError

        give_up_at, pause = time.monotonic() + patience, FIRST_PAUSE
        while True:
            try:
                return work()
            except (OSError, HTTPError, HFValidationError, RevisionResolutionError) as error:
                cause = self._refusal(error)
                if cause is not None:
                    raise LoadFailed(cause) from error
                cause = f"{self.name} cannot be fetched from the Hub: {cause_line(error)}"
                if time.monotonic() + pause > give_up_at:
                    raise LoadFailed(cause) from error
                log.warning("%s; trying again in %.0f s", cause, pause)
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _folder(self) -> Path:
        from huggingface_hub.constants import HF_HUB_CACHE
        from huggingface_hub.file_download import repo_folder_name

        return (self.cache_dir or Path(HF_HUB_CACHE)) / repo_folder_name(
            repo_id=self.repo_id, repo_type="model"
        )

    def _refusal(self, error: Exception) -> str | None:
        """What the Hub said for good, in words; None for trouble that may pass."""
        from huggingface_hub import errors

        causes: list[tuple[type[Exception], str]] = [
            # The order matters: a gated repository is a kind of repository that is not found.
            (errors.GatedRepoError, f"{self.name} is gated: ask for access on its page and set HF_TOKEN"),
            (errors.DisabledRepoError, f"{self.name} is disabled on the Hub"),
            (
                errors.RepositoryNotFoundError,
                f"{self.name} is not on the Hub, or is private and HF_TOKEN does not open it",
            ),
            (errors.RevisionNotFoundError, f"{self.repo_id} has no revision {self.revision}"),
            (errors.HFValidationError, f"{self.repo_id!r} is neither a folder nor a valid repository id"),
        ]
        return next((cause for kind, cause in causes if isinstance(error, kind)), None)
