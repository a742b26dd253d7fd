"""Endpoints as files and processes: made, looked at, revived, removed. Everything here blocks.

Whoever changes anything holds the data folder's mutex, over all service processes, and never for longer than
it takes to write a file and start a process. Each step can be the last one of a service that dies: the next
call by any service goes on from what is on disk.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from moorage.errors import Gone, Retry
from moorage_managed.capacity import Reservation
from moorage_managed.folders import DataFolder, EndpointFolder, write_whole
from moorage_managed.leftovers import kill_leftovers
from moorage_managed.processes import ProcessId, anonymous_bytes
from moorage_managed.snapshot import Snapshot
from moorage_managed.spec import EndpointSpec

HUNG_SHIM_SECONDS = 10.0  # beyond the workers' own grace
_SHIM_ENV = ("PATH", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH")

Shim = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Sight:
    """What is there now. `shim` is the live supervisor, if it is known; `started` if this call began one."""

    spec: EndpointSpec
    snapshot: Snapshot | None
    deleting: bool
    shim: ProcessId | None
    started: Shim | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """How far a removal is: `gone`, or else the supervisor to wait for."""

    gone: bool
    shim: ProcessId | None = None


class Endpoints:
    def __init__(self, data: DataFolder) -> None:
        self._data = data

    def prepare(self) -> None:
        """Makes the folders, and clears what services that died left half made or half removed."""
        self._data.prepare()
        with self._data.mutex():
            for entry in self._data.staging.iterdir():
                shutil.rmtree(entry, ignore_errors=True)

    def exists(self, name: str) -> bool:
        folder = self._data.endpoint(name)
        return folder is not None and folder.exists

    def names(self) -> list[str]:
        return [folder.name for folder in self._data.endpoints()]

    def reservations(self, *, gpu: str | None = None, leave_out: str | None = None) -> list[Reservation]:
        """Of main memory, or of one GPU's."""
        found = []
        for folder in self._data.endpoints():
            spec = folder.spec()
            if spec is None or folder.name == leave_out:
                continue
            if gpu is None:
                used = _memory_used(folder.snapshot())
                found.append(Reservation(folder.name, spec.memory_bytes * spec.replicas, used))
            elif spec.gpu == gpu:
                found.append(Reservation(folder.name, spec.gpu_bytes * spec.replicas))
        return found

    def create(self, name: str, make: Callable[[], EndpointSpec]) -> Shim | None:
        """Makes the endpoint, or adopts it, and sees to its supervisor; gives the one it started, if any.

        `make` is called only when nothing of that name exists, and raises NoCapacity when there is no room.
        """
        folder = self._folder(name)
        with self._data.mutex():
            if folder.exists:
                if folder.deleting:
                    raise Retry(f"{name} is being deleted; it can be created when it is gone", after=0.2)
            else:
                self._put_in_place(folder, make())
            return self._start_shim(folder)

    def change(self, name: str, make: Callable[[EndpointSpec], EndpointSpec]) -> Shim | None:
        """Replaces the spec by what `make` makes of it, and tells the supervisor. Raises Gone."""
        folder = self._folder(name)
        with self._data.mutex():
            old = folder.spec()
            if old is None or folder.deleting:
                raise Gone(f"{name} does not exist any more")
            new = make(old)
            if new == old:
                return None
            write_whole(folder.spec_file, new.to_json(), durable=True)
            snapshot = folder.snapshot()
            if snapshot is not None and snapshot.shim.send(signal.SIGHUP):
                return None
            return self._start_shim(folder)

    def look(self, name: str) -> Sight:
        """What is there. Raises Gone."""
        folder = self._folder(name)
        spec, deleting = folder.spec(), folder.deleting
        if spec is None:
            raise Gone(f"nothing is named {name}")
        snapshot = folder.snapshot()
        alive = snapshot is not None and snapshot.shim.alive
        return Sight(spec, snapshot, deleting, snapshot.shim if snapshot is not None and alive else None)

    def revive(self, name: str) -> Sight:
        """As `look`, and starts a supervisor if the old one is dead."""
        sight = self.look(name)
        if sight.shim is not None or sight.deleting:
            return sight
        with self._data.mutex():
            folder = self._folder(name)
            if not folder.exists or folder.deleting:
                return self.look(name)
            return replace(sight, started=self._start_shim(folder))

    def shim_log_tail(self, name: str, lines: int) -> tuple[str, ...]:
        try:
            text = self._folder(name).shim_log.read_text(errors="replace")
        except OSError:
            return ()
        return tuple(text.splitlines()[-lines:])

    def logs(self, name: str) -> Path:
        folder = self._folder(name)
        if not folder.exists:
            raise Gone(f"nothing is named {name}")
        return folder.logs

    def remove(self, name: str) -> Removal:
        """One step of a removal: the wish is written down, the supervisor told; at last the folder goes."""
        folder = self._data.endpoint(name)
        if folder is None:
            return Removal(gone=True)
        with self._data.mutex():
            if not folder.exists:
                return Removal(gone=True)
            if not folder.deleting:  # its time says since when the supervisor should be stopping
                folder.deleted_file.touch()
            lock = folder.try_lock()
            if lock is None:
                return Removal(gone=False, shim=self._stop_shim(folder))
            try:
                if kill_leftovers(folder):
                    return Removal(gone=False)
                outside = self._data.staging / f"{name}.{secrets.token_hex(4)}"
                folder.path.rename(outside)
            finally:
                os.close(lock)
        shutil.rmtree(outside, ignore_errors=True)  # what stays in staging, the next start clears
        return Removal(gone=True)

    # -- steps; the mutex is held --

    def _put_in_place(self, folder: EndpointFolder, spec: EndpointSpec) -> None:
        staged = EndpointFolder(self._data.staging / f"{folder.name}.{secrets.token_hex(4)}")
        staged.path.mkdir(mode=0o700)
        write_whole(staged.spec_file, spec.to_json(), durable=True)
        staged.path.rename(folder.path)

    def _start_shim(self, folder: EndpointFolder) -> Shim | None:
        """Starts a supervisor that holds the lock from its first moment; None when one holds it already."""
        lock = folder.try_lock()
        if lock is None:
            return None
        command = [
            sys.executable,
            "-P",
            "-m",
            "moorage_managed.shim",
            str(folder.path),
            "--lock-fd",
            str(lock),
        ]
        try:
            with folder.shim_log.open("ab") as output:
                return subprocess.Popen(  # noqa: S603  # nothing of a user's is in the command
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=folder.path,
                    env={name: os.environ[name] for name in _SHIM_ENV if name in os.environ},
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        except OSError as error:
            raise Retry(f"the supervisor of {folder.name} cannot be started: {error}", after=2.0) from error
        finally:
            os.close(lock)

    @staticmethod
    def _stop_shim(folder: EndpointFolder) -> ProcessId | None:
        """SIGTERM, or SIGKILL when it should long have been over; its workers die with it."""
        snapshot, spec = folder.snapshot(), folder.spec()
        if snapshot is None:
            return None  # it is starting, and will see the mark of deletion
        grace = spec.timings.stop_grace if spec is not None else 0.0
        since = time.time() - folder.deleted_file.stat().st_mtime
        hung = since > grace + HUNG_SHIM_SECONDS
        snapshot.shim.send(signal.SIGKILL if hung else signal.SIGTERM)
        return snapshot.shim

    def _folder(self, name: str) -> EndpointFolder:
        folder = self._data.endpoint(name)
        if folder is None:
            raise Gone(f"{name!r} is no name that an endpoint can have")
        return folder


def _memory_used(snapshot: Snapshot | None) -> int:
    if snapshot is None:
        return 0
    alive = (r.process for r in snapshot.replicas if r.process is not None and r.process.alive)
    return sum(anonymous_bytes(process.pid) for process in alive)
