"""Keeps the garbage collector out of the data path.

A full collection walks every object of the process, some 20 to 50 ms for one that has imported this service,
and CPython's defaults begin one every few thousand requests: each is a stall for every request under way.
What exists after start-up lives until the end, so it is taken out of the collector's sight, and the rest,
short-lived and mostly without cycles, is looked through less often.
"""

from __future__ import annotations

import gc

_YOUNG = 10_000  # allocations that outlive others before the young are collected; the default is 700
_MIDDLE = 20
_OLD = 50


def settle() -> None:
    """To be called once, when the process has started and before it serves. For the whole process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
