"""Whether this process can do its work now: what a load balancer and an orchestrator ask for all the time.

The store is asked at most once a second, and never by two at a time, however many ask: a question that it
does not answer is waited for by all of them, and not put again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from moorage.errors import StoreUnavailable
from moorage.ports.store import Store

log = structlog.get_logger(__name__)

KEPT_SECONDS = 1.0  # that an answer of the store is good for
PATIENCE_SECONDS = 2.0  # with the store
NOBODY = "readiness"  # the id of no record


@dataclass(frozen=True, slots=True)
class Check:
    """`trouble` says what is wrong, in words for the operator; None: all is well."""

    name: str
    trouble: str | None


class Readiness:
    """`engine` says what is wrong with the engine's loop, None for nothing.

    The store's tables were brought up to date when it was opened, or there would be no service to ask; a read
    of one of them fails where they are gone since.
    """

    def __init__(
        self,
        store: Store,
        engine: Callable[[], str | None],
        *,
        patience: float = PATIENCE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._engine = engine
        self._patience = patience
        self._monotonic = monotonic
        self._asked: asyncio.Task[str | None] | None = None
        self._began = 0.0

    async def checks(self) -> tuple[Check, ...]:
        """Every check, in an order that stays; within `patience`."""
        return Check("store", await self._store_trouble()), Check("engine", self._engine())

    async def aclose(self) -> None:
        """Asks no more."""
        if self._asked is not None:
            self._asked.cancel()
            await asyncio.wait({self._asked})

    async def _store_trouble(self) -> str | None:
        asked = self._asked
        if asked is None or (asked.done() and self._monotonic() - self._began > KEPT_SECONDS):
            asked = self._asked = asyncio.create_task(self._ask(), name="readiness")
            self._began = self._monotonic()
        left = max(0.0, self._began + self._patience - self._monotonic())
        done, _ = await asyncio.wait({asked}, timeout=left)
        if done and not asked.cancelled():
            return asked.result()
        return f"It has not answered for {self._monotonic() - self._began:.0f} s."

    async def _ask(self) -> str | None:
        try:
            await self._store.idempotency_record(NOBODY)
        except StoreUnavailable:
            return "It cannot be reached."
        except Exception:
            log.exception("readiness.store_failed")
            return "It does not answer as it should; the log has the cause."
        return None
