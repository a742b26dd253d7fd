"""Where everything lies on disk, and how it gets there whole.

    <data_dir>/<name>/        one endpoint: spec.json, state.json, lock, deleted, logs/, tmp/, shim.log
    <data_dir>/.mutex         held while endpoints are made, revived or removed
    <data_dir>/.ports         one byte range lock per loopback port in use
    <data_dir>/.notify/       datagram sockets of the services that listen
    <data_dir>/.staging/      folders on their way in or out; nothing in there counts
    <data_dir>/.cache/        downloaded models, shared by all workers

External names are DNS labels and never begin with a dot, so the two kinds cannot meet. A folder comes in by
one rename with its spec inside, and goes out by one rename: an endpoint either is there or is not.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moorage_managed.snapshot import Snapshot
from moorage_managed.spec import EndpointSpec

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def possible_name(name: str) -> bool:
    """Whether an endpoint can be called so."""
    return _NAME.fullmatch(name) is not None


def write_whole(path: Path, text: str, *, durable: bool = False) -> None:
    """Replaces the file at once, readable by its owner alone; `durable` also survives a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


class EndpointFolder:
    """The files of one endpoint. Reading what is not there, or not ours, gives None."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.spec_file = path / "spec.json"
        self.state_file = path / "state.json"
        self.lock_file = path / "lock"
        self.deleted_file = path / "deleted"
        self.logs = path / "logs"
        self.tmp = path / "tmp"
        self.shim_log = path / "shim.log"

    @property
    def exists(self) -> bool:
        return self.spec_file.exists()

    @property
    def deleting(self) -> bool:
        return self.deleted_file.exists()

    def spec(self) -> EndpointSpec | None:
        try:
            return EndpointSpec.from_json(self.spec_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def snapshot(self) -> Snapshot | None:
        try:
            return Snapshot.from_json(self.state_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def try_lock(self) -> int | None:
        """The lock that one supervisor holds for life, as a file descriptor; None when it is held."""
        fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd


class DataFolder:
    """The provider's own folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notify = path / ".notify"
        self.staging = path / ".staging"
        self.ports_file = path / ".ports"
        self._mutex = path / ".mutex"

    def prepare(self) -> None:
        for folder in (self.path, self.notify, self.staging):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def endpoint(self, name: str) -> EndpointFolder | None:
        """None for a name that no endpoint can have."""
        return EndpointFolder(self.path / name) if possible_name(name) else None

    def endpoints(self) -> list[EndpointFolder]:
        try:
            names = sorted(entry.name for entry in os.scandir(self.path))
        except FileNotFoundError:
            return []
        found = (EndpointFolder(self.path / name) for name in names if possible_name(name))
        return [folder for folder in found if folder.exists]

    @contextmanager
    def mutex(self) -> Iterator[None]:
        """One at a time over all service processes. Blocks; held for milliseconds."""
        fd = os.open(self._mutex, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
