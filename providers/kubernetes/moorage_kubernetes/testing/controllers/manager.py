"""Runs the controllers: what changed is looked at again, by each that it concerns, once, and soon."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Iterable, Sequence
from typing import Protocol

from moorage_kubernetes.testing.statuses import ApiError
from moorage_kubernetes.testing.store import Change, Key, Store

_IN_ONE_GO = 20  # then requests get their turn


class Controller(Protocol):
    """`concerned` and `everything` name what `reconcile` is to look at; that may be called at any time."""

    def concerned(self, change: Change) -> Iterable[Key]: ...

    def everything(self) -> Iterable[Key]: ...

    def reconcile(self, key: Key) -> None: ...


class Manager:
    """`broken` collects what a controller stumbled over: a fault of this server's own."""

    def __init__(self, store: Store, broken: list[str]) -> None:
        self._store = store
        self._broken = broken
        self._controllers: list[Controller] = []
        self._queue: dict[tuple[int, Key], None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, controllers: Sequence[Controller]) -> None:
        self._controllers = list(controllers)
        self._store.listeners.append(self._note)
        self.look_at_everything()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def look_at(self, controller: Controller, key: Key) -> None:
        self._queue[(self._controllers.index(controller), key)] = None
        self._wake.set()

    def look_at_everything(self) -> None:
        """After what no object shows has changed: a fault, an add-on."""
        for index, controller in enumerate(self._controllers):
            for key in controller.everything():
                self._queue[(index, key)] = None
        self._wake.set()

    def _note(self, change: Change) -> None:
        for index, controller in enumerate(self._controllers):
            for key in controller.concerned(change):
                self._queue[(index, key)] = None
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            done = 0
            while self._queue:
                entry = next(iter(self._queue))
                del self._queue[entry]
                self._reconcile(*entry)
                done += 1
                if done % _IN_ONE_GO == 0:
                    await asyncio.sleep(0)

    def _reconcile(self, index: int, key: Key) -> None:
        try:
            self._controllers[index].reconcile(key)
        except ApiError as error:
            self._broken.append(f"{type(self._controllers[index]).__name__} {key}: {error.message}")
        except Exception:  # whatever it is, it must fail the test that met it
            self._broken.append(traceback.format_exc())
