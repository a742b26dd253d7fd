"""The live catalog, asked once for everybody who wants it at the same moment, and kept for half a minute."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from moorage.errors import Retry
from moorage_runpod.api import AccountApi
from moorage_runpod.offers import Catalog

KEPT_SECONDS = 30.0
SILENCE_KEPT_SECONDS = 5.0  # so that one who does not answer is not waited for by each in turn
ACCOUNTS_KEPT = 500


@dataclass(frozen=True, slots=True)
class _Kept:
    reading: asyncio.Task[Catalog]
    began: float  # monotonic


class Market:
    """Stock is told per account, so nothing is shared between keys."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._monotonic = monotonic

    async def catalog(self, api: AccountApi) -> Catalog:
        """Raises Unauthorized and PermissionMissing; a catalog that does not answer is told as silent."""
        who = hashlib.sha256(api.key.encode()).hexdigest()
        kept = self._kept.get(who)
        if kept is None or self._stale(kept):
            kept = _Kept(asyncio.create_task(_read(api)), self._monotonic())
            kept.reading.add_done_callback(_looked_at)
            self._kept[who] = kept
            self._kept.move_to_end(who)
            if len(self._kept) > ACCOUNTS_KEPT:
                self._kept.popitem(last=False)
        # One who is cancelled while waiting takes nothing from the others.
        return await asyncio.shield(kept.reading)

    def close(self) -> None:
        for kept in self._kept.values():
            kept.reading.cancel()
        self._kept.clear()

    def _stale(self, kept: _Kept) -> bool:
        age = self._monotonic() - kept.began
        if not kept.reading.done():
            return False
        if kept.reading.cancelled() or kept.reading.exception() is not None:
            return True
        return age >= (KEPT_SECONDS if kept.reading.result().gpus is not None else SILENCE_KEPT_SECONDS)


def _looked_at(reading: asyncio.Task[Catalog]) -> None:
    """An error that nobody waits for any more is no news."""
    if not reading.cancelled():
        reading.exception()


async def _read(api: AccountApi) -> Catalog:
    today = datetime.now(UTC).date().isoformat()
    try:
        return Catalog(await api.gpu_types(), today)
    except Retry as error:
        return Catalog(None, today, error.detail)
