"""Lets one job have the worker for itself.

A job whose last attempt has come may end the process again. Its neighbours must not be charged with that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Many at a time, or one alone; who wants to be alone is waited for by those who come later."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._many = 0
        self._alone = False
        self._wanting = 0

    @asynccontextmanager
    async def among_others(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._alone and not self._wanting)
            self._many += 1
        try:
            yield
        finally:
            self._many -= 1
            await self._tell()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._changed:
            self._wanting += 1
            try:
                await self._changed.wait_for(lambda: not self._alone and not self._many)
                self._alone = True
            finally:
                self._wanting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            self._alone = False
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
