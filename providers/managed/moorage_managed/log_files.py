"""What the workers print, kept over their restarts and bounded in size.

One file for all replicas of an endpoint, a line being `<time> <replica> <text>`, with two older generations
beside it. The supervisor writes; services read, and find their place again after a rotation by the inode.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_LINE_BYTES = 16 * 1024
GENERATIONS = ("worker.log.2", "worker.log.1", "worker.log")  # oldest first
SUPERVISOR = "supervisor"  # the replica name of the supervisor's own lines
TAIL_LINES = 50


class LogWriter:
    """Appends lines and remembers the workers' last ones."""

    def __init__(self, folder: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        folder.mkdir(exist_ok=True, mode=0o700)
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._folder = folder
        self._max_bytes = max_bytes
        self._partial: dict[str, bytes] = {}
        self._open()

    def feed(self, replica: str, part: bytes) -> None:
        """Bytes as a worker wrote them; whole lines go to the file, the rest waits."""
        lines = (self._partial.pop(replica, b"") + part).split(b"\n")
        rest = lines.pop()
        if len(rest) > MAX_LINE_BYTES:
            lines.append(rest)
        elif rest:
            self._partial[replica] = rest
        texts = [_readable(line) for line in lines]
        self.tail.extend(texts)
        self._write(replica, texts)

    def finish(self, replica: str) -> None:
        """The worker is over: what it wrote without a line's end is a line too."""
        if replica in self._partial:
            self.feed(replica, b"\n")

    def say(self, text: str) -> None:
        """A line of the supervisor's own."""
        self._write(SUPERVISOR, [text])

    def _write(self, replica: str, texts: list[str]) -> None:
        if not texts:
            return
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        raw = "".join(f"{at} {replica} {text}\n" for text in texts).encode()
        os.write(self._fd, raw)
        self._size += len(raw)
        if self._size > self._max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        os.close(self._fd)
        for older, newer in pairwise(GENERATIONS):  # the oldest goes first, overwritten by its successor
            if (self._folder / newer).exists():
                (self._folder / newer).replace(self._folder / older)
        self._open()

    def _open(self) -> None:
        path = self._folder / GENERATIONS[-1]
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size


@dataclass(frozen=True, slots=True)
class StoredLine:
    at: datetime
    replica: str
    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """Up to where somebody has read: a file by its inode, and the offset in it."""

    inode: int
    offset: int


def read_tail(folder: Path, lines: int) -> tuple[list[StoredLine], Place | None]:
    """The last `lines` lines, oldest first, and the place after them. Blocks."""
    everything, place = read_since(folder, None)
    return everything[len(everything) - lines if lines < len(everything) else 0 :], place


def read_since(folder: Path, place: Place | None) -> tuple[list[StoredLine], Place | None]:
    """Whole lines after `place` (None: from the beginning), and the new place. Blocks."""
    found: list[StoredLine] = []
    for path, offset in _files_from(folder, place):
        try:
            with path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if place is not None and offset and inode != place.inode:
                    offset = 0  # rotated between looking and opening
                file.seek(offset)
                raw = file.read()
        except FileNotFoundError:
            continue
        whole = raw.rpartition(b"\n")[0]
        found.extend(line for text in whole.splitlines() if (line := _parse(text)) is not None)
        place = Place(inode, offset + (len(whole) + 1 if whole else 0))
    return found, place


def _files_from(folder: Path, place: Place | None) -> Iterator[tuple[Path, int]]:
    """The files that may hold something after `place`, oldest first, with the offset to begin at."""
    inodes = {path: path.stat().st_ino for name in GENERATIONS if (path := folder / name).exists()}
    begun = place is None or place.inode not in inodes.values()
    for path, inode in inodes.items():
        if place is not None and inode == place.inode:
            begun = True
            yield path, place.offset
        elif begun:
            yield path, 0


def _parse(raw: bytes) -> StoredLine | None:
    at, _, rest = raw.decode(errors="replace").partition(" ")
    replica, _, text = rest.partition(" ")
    try:
        return StoredLine(datetime.fromisoformat(at), replica, text)
    except ValueError:
        return None


def _readable(raw: bytes) -> str:
    """One line as a terminal would leave it: a carriage return begins it anew; no control characters."""
    text = raw[:MAX_LINE_BYTES].decode(errors="replace").rstrip("\r").rpartition("\r")[2]
    return "".join(c for c in text if c == "\t" or c.isprintable())
