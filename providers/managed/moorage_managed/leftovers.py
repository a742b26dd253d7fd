"""What a killed supervisor may leave behind, found and ended by whoever holds the endpoint's lock next."""

from __future__ import annotations

from pathlib import Path

from moorage_managed.folders import EndpointFolder
from moorage_managed.limits import leftover_groups, remove_groups
from moorage_managed.processes import in_groups, kill_all, marked


def kill_leftovers(folder: EndpointFolder) -> int:
    """Kills what remains of the endpoint's workers; how many were still there, so ask until it is 0.

    Workers die with their supervisor by the kernel's hand; their own children may not. They are known by the
    mark in their environment and, where there are cgroups, by those. The caller holds the folder's lock.
    """
    before = folder.snapshot()
    if before is None:
        return 0  # the first supervisor writes its snapshot before it starts anything
    groups = {Path(group) for group in before.cgroups} | leftover_groups(folder.path)
    count = kill_all({*marked(str(folder.path)), *in_groups(str(group) for group in groups)})
    if count == 0:
        remove_groups(groups)
    return count
