"""What providers tell by themselves: one watch for each account of each provider that can be watched.

Accounts come and go while the service runs (a cluster is imported, another is removed), so the set of watches
is brought in line with what is stored, at the start and whenever something says that it changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import structlog

from moorage.credentials import Vault
from moorage.domain.naming import parse_external_name
from moorage.errors import MoorageError
from moorage.ports.provider import Provider, Watch

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 1.0  # before a watch that ended begins anew; looks at intervals cover the gap
AGAIN_AT_MOST = 60.0  # while it ends at once, each time
QUIET_SECONDS = 0.2  # several changes within it are one


@dataclass(frozen=True, slots=True)
class Watched:
    """One account; `credential_id` None: the provider needs none."""

    provider: str
    credential_id: str | None


class Watches:
    """`on_signal` hears the id of each deployment that may have changed."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        vault: Vault,
        on_signal: Callable[[str], None],
    ) -> None:
        self._providers: dict[str, Provider] = {n: p for n, p in providers.items() if isinstance(p, Watch)}
        self._vault = vault
        self._on_signal = on_signal
        self._changed = asyncio.Event()
        self._running: dict[Watched, asyncio.Task[None]] = {}

    def accounts_changed(self) -> None:
        """An account may have been stored or removed."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        if not self._providers:
            return
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._changed.clear()
                try:
                    self._bring_in_line(await self._wanted(), tasks)
                except MoorageError as error:
                    log.warning("engine.watches_unknown", error=str(error))
                    await asyncio.sleep(AGAIN_SECONDS)
                    continue
                await self._changed.wait()
                await asyncio.sleep(QUIET_SECONDS)

    async def _wanted(self) -> set[Watched]:
        return {
            Watched(name, account)
            for name, provider in self._providers.items()
            for account in await self._vault.ids_at(provider)
        }

    def _bring_in_line(self, wanted: set[Watched], tasks: asyncio.TaskGroup) -> None:
        for gone in self._running.keys() - wanted:
            self._running.pop(gone).cancel()
        for new in wanted - self._running.keys():
            name = f"engine:watch:{new.provider}:{new.credential_id or ''}"
            self._running[new] = tasks.create_task(self._watch(new), name=name)

    async def _watch(self, watched: Watched) -> None:
        pause = AGAIN_SECONDS
        while True:
            try:
                async for name in await self._names(watched):
                    pause = AGAIN_SECONDS
                    parsed = parse_external_name(name)
                    if parsed is not None:
                        self._on_signal(parsed.deployment_id)
            except MoorageError as error:
                log.warning("engine.watch_ended", provider=watched.provider, error=str(error))
            except Exception:  # a bug of one provider's watch stops nobody else
                log.exception("engine.watch_failed", provider=watched.provider)
            await asyncio.sleep(pause)
            pause = min(AGAIN_AT_MOST, pause * 2)

    async def _names(self, watched: Watched) -> AsyncIterator[str]:
        provider = self._providers[watched.provider]
        assert isinstance(provider, Watch)
        id_ = watched.credential_id
        credentials = None if id_ is None else await self._vault.open(id_)
        return provider.watch(credentials)
