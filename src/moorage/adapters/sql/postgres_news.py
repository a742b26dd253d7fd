"""News of other processes' writes: PostgreSQL's LISTEN, kept up over outages.

Whoever writes sends its own name along in the same transaction, once, and so knows its own news when they
come back. What happened while nobody could listen is made up for with one piece of news.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import psycopg
import structlog
from sqlalchemy import Connection
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from moorage.adapters.sql.postgres_errors import told
from moorage.adapters.sql.postgres_url import place

log = structlog.get_logger(__name__)

CHANNEL = "moorage"
HEARTBEAT = 20.0  # seconds of silence until the connection has to show that it lives
PATIENCE = 5.0  # seconds for that
PAUSE = 0.1  # seconds before the first try to connect again
RETRY_AT_MOST = 5.0  # seconds between two tries to connect

# Any: the row type of a connection that reads no rows
Listening = psycopg.AsyncConnection[Any]


def tell(connection: Connection, writer: str) -> None:
    """Within a transaction that may have written. It is told when that is committed, if it wrote at all."""
    connection.exec_driver_sql(
        "SELECT pg_notify(%s, %s) WHERE pg_current_xact_id_if_assigned() IS NOT NULL", (CHANNEL, writer)
    )


class News:
    """Calls `changed` for every write of another than `writer`, or several."""

    def __init__(self, parameters: Mapping[str, Any], writer: str, changed: Callable[[], None]) -> None:
        self._parameters = parameters  # Any: as the driver's keywords are
        self._writer = writer
        self._changed = changed
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when what is written from now on is heard. Raises the driver's error."""
        self._task = asyncio.create_task(self._follow(await self._connect()))

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self, connection: Listening) -> None:
        """For as long as the store is open: whatever broke, it is listened again."""
        while True:
            try:
                async with connection:
                    await self._hear(connection)
            except Exception as error:
                where = place(self._parameters)
                log.warning("postgres_news_lost", error=f"{type(error).__name__}: {told(error, where)}")
            await asyncio.sleep(PAUSE)
            connection = await self._reconnect()
            log.info("postgres_listening_again")
            self._changed()

    async def _hear(self, connection: Listening) -> None:
        """Until the connection breaks."""
        while True:
            async for notice in connection.notifies(timeout=HEARTBEAT):
                if notice.payload != self._writer:
                    self._changed()
            async with asyncio.timeout(PATIENCE):
                await connection.execute("SELECT 1")

    async def _reconnect(self) -> Listening:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Exception),
            wait=wait_random_exponential(multiplier=0.1, max=RETRY_AT_MOST),
        )
        connect: Callable[[], Awaitable[Listening]] = self._connect
        return await retrying(connect)

    async def _connect(self) -> Listening:
        connection: Listening = await psycopg.AsyncConnection.connect(autocommit=True, **self._parameters)
        try:
            await connection.execute(f"LISTEN {CHANNEL}".encode())
        except BaseException:
            await connection.close()
            raise
        return connection
