"""How far a download is, in bytes, while another program writes the files."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[int, int], None]  # (bytes that are here, bytes in all), from any thread
SAMPLE_SECONDS = 0.5


def quiet(_done: int, _total: int) -> None:
    """A Progress that tells nobody."""


@contextmanager
def watched(arrived: Callable[[], int], progress: Progress, *, before: int, total: int) -> Iterator[None]:
    """Tells `progress` what `arrived` says, in bytes, on top of those that were here `before`.

    Neither s5cmd nor the Hub's client has a signal for a file that is under way, so it is looked at.
    """
    over = threading.Event()

    def look() -> None:
        most = before
        while not over.wait(SAMPLE_SECONDS):
            most = max(most, min(total, before + arrived()))
            progress(most, total)

    progress(before, total)
    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    progress(total, total)


def written_bytes(folder: Path) -> int:
    """Bytes on disk below a folder; a file that has holes yet counts without them."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_blocks * 512
            except OSError:
                continue  # renamed meanwhile
    return total
