"""Making, finding and removing endpoints by name, where names are not unique and answers get lost.

RunPod takes any number of endpoints of one name, and an endpoint may be missing from its list for a moment.
So the rule is: look, make, look again; of several with one name the oldest stays and the others are removed.
Whoever makes one at the same time follows the same rule and keeps the same one. A create whose answer is lost
is not repeated before the list has had time to show what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar
from weakref import WeakValueDictionary

from moorage.errors import Gone, QuotaExceeded, Rejected, Retry
from moorage.ports.provider import Absent, StillThere
from moorage_runpod.api import AccountApi
from moorage_runpod.bodies import Wanted, create_body, patch_body
from moorage_runpod.environment import INSTALLATION
from moorage_runpod.failures import Unanswered
from moorage_runpod.settings import PREFIX, RunPodSettings
from moorage_runpod.wire import Endpoint

STILL_THERE_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 1.0
DELETE_ROUNDS = 3

T = TypeVar("T")


class EndpointsOf:
    """The endpoints of this installation, under whichever key is given."""

    def __init__(self, settings: RunPodSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Names of which one may have been made, and until when the list may not show it (monotonic).
        self._unsure: dict[str, float] = {}

    async def named(self, api: AccountApi, name: str) -> list[Endpoint]:
        """The oldest first, which is the one that counts."""
        return _oldest_first(e for e in await api.endpoints() if self._ours(e, name))

    async def find(self, api: AccountApi, name: str) -> Endpoint | None:
        """Raises Retry as long as nobody can know."""
        return next(iter(await self._known(api, name)), None)

    async def create(self, api: AccountApi, goal: Wanted) -> Endpoint:
        async with self._lock(goal.name):
            there = await self._known(api, goal.name)
            if there:
                return await _keep_oldest(api, there)
            try:
                made = await _within_quota(goal, lambda allowed: _created(api, goal, allowed))
            except asyncio.CancelledError:
                self._not_sure(goal.name)
                raise
            except Unanswered:
                self._not_sure(goal.name)
                there = await self._known(api, goal.name)
                if not there:
                    raise
                return await _keep_oldest(api, there)
            there = await self.named(api, goal.name)
            if all(e.id != made.id for e in there):  # the list may not show it yet
                there = _oldest_first((made, *there))
            return await _keep_oldest(api, there)

    async def change(self, api: AccountApi, goal: Wanted, id_: str) -> None:
        """Raises Gone. Nothing is sent when nothing differs."""
        async with self._lock(goal.name):
            there, _ = await api.endpoint(id_)

            async def patch(allowed: int | None) -> None:
                body = patch_body(goal, there, allowed)
                if body:
                    await api.patch(id_, body)

            await _within_quota(goal, patch)

    async def delete(self, api: AccountApi, name: str, id_: str | None) -> Absent | StillThere:
        """Everything of that name. `Absent`: each is known to be gone, and no other is listed."""
        async with self._lock(name):
            known = {id_} if id_ is not None else set()
            gone: set[str] = set()
            for _ in range(DELETE_ROUNDS):
                for one in sorted(known - gone):
                    if not await _removed(api, one):
                        return StillThere(STILL_THERE_SECONDS)
                    gone.add(one)
                listed = {e.id for e in await self.named(api, name)}
                if listed <= gone:  # the list may still show what is gone
                    return self._absent(name)
                known |= listed
            return StillThere(STILL_THERE_SECONDS)

    async def _known(self, api: AccountApi, name: str) -> list[Endpoint]:
        """As `named`. Raises Retry when none is listed, and one may have been made."""
        found = await self.named(api, name)
        if not found:
            self._refuse_unsure(name)
        self._unsure.pop(name, None)
        return found

    def _not_sure(self, name: str) -> None:
        self._unsure[name] = self._monotonic() + self._settings.list_lag_seconds

    def _absent(self, name: str) -> Absent | StillThere:
        """A create that may still come to light is waited for."""
        try:
            self._refuse_unsure(name)
        except Retry as error:
            return StillThere(error.after)
        return Absent()

    def _refuse_unsure(self, name: str) -> None:
        left = self._unsure.get(name, 0.0) - self._monotonic()
        if left > 0:
            raise Retry(
                f"RunPod did not tell whether it created {name}: its list is looked at until that is certain",
                after=min(left, LOOK_AGAIN_SECONDS),
            )
        self._unsure.pop(name, None)

    def _ours(self, endpoint: Endpoint, name: str) -> bool:
        """By name; one that another installation marked as its own is not ours, whatever it is called."""
        mark = endpoint.env.get(INSTALLATION, self._settings.installation)
        return endpoint.name == name and mark == self._settings.installation

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock


async def _keep_oldest(api: AccountApi, there: Sequence[Endpoint]) -> Endpoint:
    """The one that stays, after the others of its name are removed."""
    stays, *others = there
    for other in others:
        await api.delete(other.id)
    return stays


async def _created(api: AccountApi, goal: Wanted, allowed: int | None) -> Endpoint:
    try:
        return await api.create(create_body(goal, allowed))
    except Gone as error:  # of a create, what is missing can only be what the body names
        raise Rejected(
            f"{error.detail}. Something that the endpoint refers to does not exist.",
            advice=f"Check {PREFIX}TEMPLATE_ID, {PREFIX}REGISTRY and network_volumes.",
        ) from None


async def _removed(api: AccountApi, id_: str) -> bool:
    """Deletes it, and looks whether it is gone: the answer to the deletion may be lost, or come too early."""
    with contextlib.suppress(Unanswered):
        await api.delete(id_)
    try:
        await api.endpoint(id_)
    except Gone:
        return True
    return False


async def _within_quota(goal: Wanted, act: Callable[[int | None], Awaitable[T]]) -> T:
    """Does it with as many workers as are wanted, else with as many as the account's quota leaves, as long as
    these are of use. Raises QuotaExceeded."""
    allowed: int | None = None
    while True:
        try:
            return await act(allowed)
        except QuotaExceeded as error:
            before = goal.scaling.workers_max if allowed is None else allowed
            if error.limit is None or not goal.least_workers <= error.limit < before:
                raise
            allowed = error.limit


def _oldest_first(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    return sorted(endpoints, key=lambda e: (e.created_at, e.id))
