"""Fetches files by URL in parts, several at a time: one connection to an object store is far slower than the
network. A part that was cut off goes on where it stopped.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx2

from moorage_worker.cache.errors import CopyBroken, EndpointUnreachable, PermissionMissing, StorageTrouble
from moorage_worker.cache.layout import FileEntry
from moorage_worker.errors import cause_line

PART_BYTES = 50 * 1024**2
CONNECTIONS = 8
TRIES, FIRST_PAUSE = 5, 0.2  # of one part; the pause doubles
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Links(Protocol):
    """URLs that open files for a while."""

    def of(self, path: str) -> str: ...

    def renew(self, path: str, stale: str) -> None:
        """Make `of` give another URL than `stale`. Raises StorageTrouble when there is none."""


@dataclass(slots=True)
class Part:
    """The bytes of a file from `at`, the next one to come, to before `end`."""

    file: FileEntry
    at: int
    end: int


def parts_of(file: FileEntry, part_bytes: int) -> list[Part]:
    """All of a file, in parts of at most `part_bytes`; none for an empty one."""
    return [Part(file, at, min(at + part_bytes, file.size)) for at in range(0, file.size, part_bytes)]


class PartsDownload:
    """Brings files to a folder. One use; blocks."""

    def __init__(
        self,
        client: httpx2.Client,
        links: Links,
        folder: Path,
        on_file: Callable[[FileEntry], None],
        *,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """`on_file` hears each file when its last byte is there; one call at a time, from any thread."""
        self._client = client
        self._links = links
        self._folder = folder
        self._on_file = on_file
        self._part_bytes = part_bytes
        self._left: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def run(self, files: Iterable[FileEntry]) -> None:
        """Raises StorageTrouble, the first that any part met; the others are stopped then."""
        parts = [part for file in files for part in self._begin(file)]
        with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="part") as pool:
            futures = [pool.submit(self._bring, part) for part in parts]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            self._stop.set()
            for future in futures:
                future.cancel()
        for future in done:
            future.result()

    def _begin(self, file: FileEntry) -> Sequence[Part]:
        path = self._folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        parts = parts_of(file, self._part_bytes)
        self._left[file.path] = len(parts)
        if not parts:
            self._on_file(file)
        return parts

    def _bring(self, part: Part) -> None:
        pause = FIRST_PAUSE
        for tries_left in reversed(range(TRIES)):
            if self._stop.is_set():
                return
            url = self._links.of(part.file.path)
            try:
                self._receive(url, part)
            except (httpx2.TransportError, EndpointUnreachable) as error:
                if not tries_left:
                    message = f"{part.file.path} cannot be fetched: {cause_line(error)}"
                    raise EndpointUnreachable(message) from error
            except PermissionMissing:
                if not tries_left:
                    raise
                self._links.renew(part.file.path, url)
            else:
                self._end(part.file)
                return
            self._stop.wait(pause)
            pause *= 2

    def _receive(self, url: str, part: Part) -> None:
        """Fetch the rest of a part. Raises when its end was not reached; what came is kept in `part.at`."""
        wanted = {"Range": f"bytes={part.at}-{part.end - 1}", "Accept-Encoding": "identity"}
        with (
            self._client.stream("GET", url, headers=wanted) as response,
            (self._folder / part.file.path).open("r+b") as file,
        ):
            _judge(response, part)
            file.seek(part.at)
            for chunk in response.iter_raw():  # as it comes: what a chunk size gathers is lost with the line
                if self._stop.is_set():
                    return
                if part.at + len(chunk) > part.end:
                    raise CopyBroken(f"{part.file.path} has more than its {part.file.size} bytes")
                file.write(chunk)
                part.at += len(chunk)
        if part.at < part.end:
            raise EndpointUnreachable("the answer ended too early")

    def _end(self, file: FileEntry) -> None:
        with self._lock:
            self._left[file.path] -= 1
            if not self._left[file.path] and not self._stop.is_set():
                self._on_file(file)


def _judge(response: httpx2.Response, part: Part) -> None:
    """Raises unless the answer is the rest of the part, of a file of the right size."""
    status, name = response.status_code, part.file.path
    if status in (401, 403):
        raise PermissionMissing(f"{name}: its URL is refused ({status})")
    if status == 404:
        raise CopyBroken(f"{name} is missing in the bucket")
    if status == 429 or status >= 500:
        raise EndpointUnreachable(f"the storage answers {status}")
    if status == 416:
        raise CopyBroken(f"{name} has fewer than its {part.file.size} bytes")
    if status != 206:
        raise StorageTrouble(f"{name}: the storage does not answer a range with 206, but {status}")
    told = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if told is None or int(told[1]) != part.at:
        raise StorageTrouble(f"{name}: the storage answers another range than the one asked for")
    if int(told[3]) != part.file.size:
        raise CopyBroken(f"{name} has {told[3]} bytes, not {part.file.size}")
