"""Processes told apart for certain, and signalled without the danger of hitting a stranger.

A bare pid names nobody: pids are used again. Here a process is its pid and its start time; signals go through
a pidfd, opened before the start time is compared. Processes that lost their parent are found by the mark that
every worker and its children carry in their environment.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MARK_VARIABLE = "MOORAGE_MANAGED_MARK"  # the endpoint's folder: unique on the machine
REPLICA_VARIABLE = "MOORAGE_MANAGED_REPLICA"


@dataclass(frozen=True, slots=True)
class ProcessId:
    pid: int
    start: int  # clock ticks since boot

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """None when there is no such process, or only its zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        fields = stat.rpartition(") ")[2].split()  # the command may contain anything, ')' too
        if fields[0] in "ZX":
            return None
        return cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self

    def open(self) -> int | None:
        """A pidfd that is this process for certain, or None when it is over. The caller closes it."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return None
        if self.alive:
            return fd
        os.close(fd)
        return None

    def send(self, number: signal.Signals) -> bool:
        """Whether the signal was sent; False when the process is over."""
        fd = self.open()
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True


def marked(mark: str, replica: str | None = None) -> Iterator[ProcessId]:
    """Living processes that carry the mark, of one replica or of all."""
    wanted = {f"{MARK_VARIABLE}={mark}".encode()}
    if replica is not None:
        wanted.add(f"{REPLICA_VARIABLE}={replica}".encode())
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        process = ProcessId.of(int(entry.name))
        if process is not None and wanted <= _environment(process.pid):
            yield process


def in_groups(cgroups: Iterable[str]) -> Iterator[ProcessId]:
    """Living processes in the given cgroup folders."""
    for folder in cgroups:
        try:
            pids = Path(folder, "cgroup.procs").read_text().split()
        except OSError:
            continue
        for pid in pids:
            process = ProcessId.of(int(pid))
            if process is not None:
                yield process


def kill_all(processes: Iterable[ProcessId]) -> int:
    """SIGKILL to each; how many were still there."""
    return sum([process.send(signal.SIGKILL) for process in processes])


def anonymous_bytes(pid: int) -> int:
    """Memory the process holds that no file backs, 0 when it is over."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                total += int(line.split()[1]) * 1024
    except OSError:
        return 0
    return total


def exit_words(status: int) -> str:
    """A wait status as a person would say it: `exited with status 1`, `was killed by SIGKILL`."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}"


def _environment(pid: int) -> set[bytes]:
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()
