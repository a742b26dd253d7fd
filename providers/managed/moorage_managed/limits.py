"""Memory and CPU limits of one replica, by the best means this machine grants.

In order: a cgroup v2 folder of our own, cgroup v1 folders of our own, else `RLIMIT_DATA` with CPU affinity.
A cgroup counts what is really in memory, and pages that a file backs are dropped before anything is killed,
so that a model mapped from disk costs nothing here. `RLIMIT_DATA` counts what was asked for, used or not;
runtimes ask for much more than they use, so it only stops what has run away.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
RLIMIT_FACTOR = 2
RLIMIT_FLOOR = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one replica. `enter` runs in the new process, before it becomes the worker."""

    means: str  # in words, for the snapshot
    groups: tuple[Path, ...]
    enter: Callable[[], None]

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed a process in here for memory."""
        return any(_oom_kills(group) > 0 for group in self.groups)

    def remove(self) -> None:
        remove_groups(self.groups)


def group_key(folder: Path, replica: str) -> str:
    """A cgroup's name: unique on the machine, and computable again."""
    return f"moorage-{folder.stat().st_ino:x}-{folder.name}-{replica}"


def leftover_groups(folder: Path) -> set[Path]:
    """The cgroups of a folder's replicas that exist, whoever made them."""
    key = group_key(folder, "*")
    parents = {own_group(controller) for controller in ("", "memory", "cpu")}
    return {group for parent in parents if parent is not None for group in parent.glob(key)}


def remove_groups(groups: Iterable[Path]) -> None:
    """Removes cgroups; their processes are dead, but the kernel may need a moment to notice."""
    for group in groups:
        for _ in range(50):
            try:
                group.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.002)
            else:
                break


def impose(key: str, memory_bytes: int, cpus: float) -> Limits:
    """Makes the limits. Never raises: a machine that grants nothing better gets the last resort."""
    for means in (_cgroup_v2, _cgroup_v1):
        with contextlib.suppress(OSError):
            limits = means(key, memory_bytes, cpus)
            if limits is not None:
                return limits
    return process_limits(memory_bytes, cpus)


def _cgroup_v2(key: str, memory_bytes: int, cpus: float) -> Limits | None:
    parent = own_group("")
    if parent is None or "memory" not in (parent / "cgroup.controllers").read_text().split():
        return None
    if "memory" not in (parent / "cgroup.subtree_control").read_text().split():
        (parent / "cgroup.subtree_control").write_text("+memory +cpu")
    settings = {"memory.max": str(memory_bytes), "memory.oom.group": "1"}
    if cpus < (os.cpu_count() or 1):
        settings["cpu.max"] = f"{int(cpus * PERIOD_US)} {PERIOD_US}"
    group = _make_group(parent / key, settings)
    return Limits("cgroup v2: memory and cpu", (group,), lambda: _join((group,)))


def _cgroup_v1(key: str, memory_bytes: int, cpus: float) -> Limits | None:
    memory_parent, cpu_parent = own_group("memory"), own_group("cpu")
    if memory_parent is None:
        return None
    groups = [_make_group(memory_parent / key, {"memory.limit_in_bytes": str(memory_bytes)})]
    means = "cgroup v1: memory"
    if cpu_parent is not None and cpus < (os.cpu_count() or 1):
        with contextlib.suppress(OSError):
            quota = {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(int(cpus * PERIOD_US))}
            groups.append(_make_group(cpu_parent / key, quota))
            means = "cgroup v1: memory and cpu"
    return Limits(means, tuple(groups), lambda: _join(groups))


def process_limits(memory_bytes: int, cpus: float) -> Limits:
    """The last resort: limits that the process sets on itself and its children inherit."""
    most = max(RLIMIT_FLOOR, RLIMIT_FACTOR * memory_bytes)

    def enter() -> None:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        cores = sorted(os.sched_getaffinity(0))
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cores[: max(1, round(cpus))])

    return Limits("process limits: RLIMIT_DATA and affinity", (), enter)


def own_group(controller: str) -> Path | None:
    """Our own folder in a hierarchy ("" is v2), or its root where the path is not shown (a container)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            mounts = [ROOT / controller] if controller else [ROOT, ROOT / "unified"]
            for mount in mounts:
                if (mount / "cgroup.procs").exists():
                    own = mount / path.lstrip("/")
                    return own if own.exists() else mount
    return None


def _make_group(group: Path, settings: dict[str, str]) -> Path:
    group.mkdir(exist_ok=True)
    try:
        for name, value in settings.items():
            (group / name).write_text(value)
    except OSError:
        group.rmdir()
        raise
    return group


def _join(groups: Iterable[Path]) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text("0")


def _oom_kills(group: Path) -> int:
    for name in ("memory.events", "memory.oom_control"):
        with contextlib.suppress(OSError):
            for line in (group / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0
