"""What other processes wrote, brought into this one: routes, forgotten keys, wakes.

A store tells that something was written, not what. So each part reads again what it needs, at once when it
was quiet before, and then at most so often however much is written: a part that takes long to read is read
less often. What a part knows is older than `REACHES_ALL_WITHIN` only while the store is away, or where news
were lost with a process that died before it told: SQLite and PostgreSQL tell with the commit, Firestore a
moment later. So all parts look again every `REMINDED_EVERY` seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from moorage.domain.deployment import Deployment, Phase
from moorage.engine.census import Census
from moorage.engine.store_trouble import StoreTrouble
from moorage.errors import StoreError
from moorage.gateway.routes import Route, RoutePublisher
from moorage.ports.outside import Clock
from moorage.ports.store import Store, home_of

REACHES_ALL_WITHIN = 2.0  # seconds, from a commit to what every process does
QUIET_SECONDS = 0.25  # between two times that the same part follows
AT_MOST = 1.5  # the same, of a part that takes long
SHARE = 4  # a part follows for one moment in so many
ROUTES_AT_ONCE = 500  # read before others have their turn
REMINDED_EVERY = 30.0
WAKES_AT_ONCE = 500  # in one statement


@dataclass(slots=True)
class Part:
    """Something that knows what is stored. `every` is the least time between two looks, in seconds."""

    name: str
    look: Callable[[], Awaitable[None]]
    every: float = QUIET_SECONDS
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def pause(self, took: float) -> float:
        """Seconds before the next look, after one that took so long."""
        return max(self.every, min(AT_MOST, SHARE * took))


class Following:
    def __init__(
        self,
        changes: Callable[[], AsyncIterator[None]],
        parts: Sequence[Part],
        *,
        reminded_every: float = REMINDED_EVERY,
    ) -> None:
        self._changes = changes
        self._parts = parts
        self._reminded_every = reminded_every

    async def run(self) -> None:
        """Until cancelled. Begins with a look at all: what was written before the listening began is not
        told."""
        async with asyncio.TaskGroup() as tasks:
            for part in self._parts:
                tasks.create_task(self._follow(part), name=f"following:{part.name}")
            tasks.create_task(self._remind(), name="following:remind")
            await self._listen()

    async def _remind(self) -> None:
        while True:
            await asyncio.sleep(self._reminded_every)
            self._tell()

    async def _listen(self) -> None:
        trouble = StoreTrouble("following")
        while True:
            self._tell()
            pause = QUIET_SECONDS
            try:
                async for _ in self._changes():
                    trouble.worked()
                    self._tell()
            except StoreError as error:
                pause = trouble.failed(error)
            await asyncio.sleep(pause)

    def _tell(self) -> None:
        for part in self._parts:
            part.told.set()

    @staticmethod
    async def _follow(part: Part) -> None:
        trouble = StoreTrouble(f"following.{part.name}")
        while True:
            await part.told.wait()
            part.told.clear()
            began = time.monotonic()
            try:
                await part.look()
                trouble.worked()
                pause = part.pause(time.monotonic() - began)
            except StoreError as error:
                part.told.set()
                pause = trouble.failed(error)
            await asyncio.sleep(pause)


class PublishedRoutes:
    """The gateway's table, kept as the store is. `opened` hears the ids of deployments that serve from now
    on, or never will."""

    def __init__(
        self,
        store: Store,
        routes: RoutePublisher,
        opened: Callable[[str], None],
        census: Census | None = None,
    ) -> None:
        self._store = store
        self._routes = routes
        self._opened = opened
        self._census = census or Census()
        self._dropped: set[str] = set()  # ids, since all were loaded last

    def publish(self, deployment: Deployment) -> None:
        old = self._routes.current.route(deployment.id)
        over = deployment.phase in (Phase.FAILED, Phase.DELETED)
        if old is not None and old.version > deployment.version:
            return  # read before somebody else published what came after
        self._census.heard(deployment)
        if over or (old.targets if old else ()) != deployment.status.targets:
            self._opened(deployment.id)
        if deployment.phase is Phase.DELETED:
            self._routes.drop(deployment.id)
            self._dropped.add(deployment.id)
        else:
            self._routes.put(Route.of(deployment))

    async def load(self) -> Sequence[Deployment]:
        """From the store: at the start, and after another process wrote. Reads what is not known in that
        version, and gives it."""
        before = [r.deployment_id for r in self._routes.current.routes() if r.phase is not Phase.FAILED]
        self._dropped.clear()
        versions = await self._store.serving_versions()
        newer = [id_ for id_, version in versions.items() if not self._knows(id_, version)]
        read: list[Deployment] = []
        for begin in range(0, len(newer), ROUTES_AT_ONCE):
            some = await self._store.serving(newer[begin : begin + ROUTES_AT_ONCE])
            read += some
            for deployment in some:
                known = self._knows(deployment.id, deployment.version)
                if not known and deployment.id not in self._dropped:  # while the store was read
                    self.publish(deployment)
        for deployment_id in [id_ for id_ in before if id_ not in versions]:
            current = await self._store.deployment(deployment_id)
            if current is not None:
                self.publish(current)
        return read

    def _knows(self, deployment_id: str, version: int) -> bool:
        route = self._routes.current.route(deployment_id)
        return route is not None and route.version >= version


async def wake_at_home(store: Store, serving: Sequence[Deployment], machine: str, clock: Clock) -> None:
    """Has those looked at that only this machine can look after: while it was away, others put them off."""
    ids = [deployment.id for deployment in serving if home_of(deployment) == machine]
    for begin in range(0, len(ids), WAKES_AT_ONCE):
        await store.wake(ids[begin : begin + WAKES_AT_ONCE], clock.now())
