"""How long what a killed process held lay still: read from the leases in PostgreSQL, after each kill."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import psycopg

_HELD = " UNION ALL ".join(
    f"SELECT lease_token, max(lease_until) FROM {table} WHERE lease_token IS NOT NULL GROUP BY 1"
    for table in ("deployments", "deliveries", "jobs")
)
PATIENCE = 15.0  # seconds; then a lease that nobody took was of something that is not due any more


@dataclass
class Takeovers:
    """`seconds` from a kill until another process took what the dead one held. The dead one's are the leases
    that nobody renewed or let go of, and that were gone when they had run out."""

    url: str
    seconds: list[float] = field(default_factory=list)
    _watching: set[asyncio.Task[None]] = field(default_factory=set)

    def killed(self) -> None:
        """A process died a moment ago."""
        task = asyncio.create_task(self._watch(time.time()))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def told(self) -> str:
        await asyncio.gather(*self._watching, return_exceptions=True)
        if not self.seconds:
            return "nothing was in hand at any kill"
        ordered = sorted(self.seconds)
        middle, longest = ordered[len(ordered) // 2], ordered[-1]
        return f"{len(ordered)} taken over, {middle:.2f} s (median), {longest:.2f} s (longest) after the kill"

    async def _watch(self, died: float) -> None:
        try:
            async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
                held = await self._held(connection)
                while held and time.time() < died + PATIENCE:
                    await asyncio.sleep(0.05)
                    now_held, now = await self._held(connection), time.time()
                    for token, until in list(held.items()):
                        if now_held.get(token) == until:
                            continue
                        del held[token]  # it is renewed, let go of or taken
                        if token not in now_held and until <= now:
                            self.seconds.append(now - died)
        except psycopg.OperationalError:
            return  # the server is being restarted: this kill is not measured

    @staticmethod
    async def _held(connection: psycopg.AsyncConnection[tuple[str, int]]) -> dict[str, float]:
        """When each lease ends, in seconds of the epoch, by its token."""
        rows = await (await connection.execute(_HELD)).fetchall()
        return {token: until / 1e6 for token, until in rows}
