"""Passwords with argon2id, away from the event loop.

One hash takes tens of milliseconds and 64 MiB on purpose. So it runs in threads of its own, few enough that a
burst of sign-ins takes neither the memory nor the threads that others need.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

THREADS = 2
T = TypeVar("T")


class Argon2Passwords:
    """A `Passwords` of the identity service. The parameters are the library's, which follow RFC 9106."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        self._nobody: str | None = None  # the hash that stands for users that do not exist

    async def hash(self, password: str) -> str:
        return await self._run(self._hasher.hash, password)

    async def verify(self, password: str, hash_: str | None) -> bool:
        """Whether they belong together. For None, the answer is no, and takes as long as any other."""
        if hash_ is None:
            if self._nobody is None:
                self._nobody = await self.hash(secrets.token_hex())
            await self._run(self._matches, password, self._nobody)
            return False
        return await self._run(self._matches, password, hash_)

    def _matches(self, password: str, hash_: str) -> bool:
        try:
            return self._hasher.verify(hash_, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[..., T], *arguments: str) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
