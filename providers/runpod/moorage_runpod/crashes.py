"""What a worker's log tells of crashes. Pure.

RunPod often calls a worker that dies again and again RUNNING or THROTTLED; only its log is to be believed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

EXITS = 2  # of one worker while nobody was answered: a loop
STARTS = 3
PULLS = 2

_EXIT = re.compile(
    r"exited with (?:exit |status )?(?:code )?\(?(?!0\b)\d+|terminated with exit code [1-9]", re.I
)
# One start may be told by RunPod and by the worker itself: each counts for its own.
_STARTS = (re.compile(r"start container for ", re.I), re.compile(r"starting serverless worker", re.I))
_PULL = re.compile(
    r"pull access denied|manifest (?:for .* )?(?:unknown|not found)"
    r"|(?:failed|error|unable)[^.]{0,20} pull(?:ing)?\b",
    re.I,
)
_MEMORY = re.compile(r"out of memory|OutOfMemoryError|oom.?killed", re.I)


@dataclass(frozen=True, slots=True)
class Crash:
    """`refused` says that the image cannot even be had."""

    message: str
    refused: bool = False


def crash_in(lines: Sequence[str]) -> Crash | None:
    """Of the last lines of one worker's log, oldest first; None while it may still come up."""
    if _count(_PULL, lines) >= PULLS:
        return Crash("the worker's image cannot be pulled", refused=True)
    exits, starts = _count(_EXIT, lines), max(_count(sign, lines) for sign in _STARTS)
    if exits < EXITS and starts < STARTS:
        return None
    why = ", out of memory" if _count(_MEMORY, lines) else ""
    return Crash(f"the worker ends again and again{why} (seen {max(exits, starts - 1)} times)")


def _count(sign: re.Pattern[str], lines: Sequence[str]) -> int:
    return sum(1 for line in lines if sign.search(line))
