"""What this machine, or the container that we are in, has and has free. Every call reads it anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moorage_managed.limits import own_group

GIB = 1024**3
_UNLIMITED = 1 << 60  # cgroup v1 says "no limit" with a number near 2**63


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes; `available` is what can be had without swapping."""

    total: int
    available: int

    @property
    def budget(self) -> int:
        """What the replicas may take together: all but a tenth, which is at least 0.5 and at most 4 GiB."""
        return max(0, self.total - min(4 * GIB, max(GIB // 2, self.total // 10)))


def memory() -> Memory:
    """The machine's memory, cut down to our own cgroup's limit where there is one. Blocks."""
    machine = parse_meminfo(Path("/proc/meminfo").read_text())
    limit = _group_memory()
    if limit is None:
        return machine
    return Memory(min(machine.total, limit.total), min(machine.available, limit.available))


def parse_meminfo(text: str) -> Memory:
    numbers = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words:
            numbers[name] = int(words[0]) * 1024
    return Memory(numbers["MemTotal"], numbers.get("MemAvailable", numbers["MemFree"]))


def _group_memory() -> Memory | None:
    for controller, limit, usage in (
        ("", "memory.max", "memory.current"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        group = own_group(controller)
        if group is None:
            continue
        try:
            most = (group / limit).read_text().strip()
            used = int((group / usage).read_text())
            droppable = _inactive_file(group)
        except OSError:
            continue
        if most != "max" and int(most) < _UNLIMITED:
            return Memory(int(most), max(0, int(most) - used + droppable))
    return None


def _inactive_file(group: Path) -> int:
    """Bytes of page cache that the kernel drops when somebody needs the memory."""
    for line in (group / "memory.stat").read_text().splitlines():
        if line.startswith(("inactive_file ", "total_inactive_file ")):
            return int(line.split()[1])
    return 0
