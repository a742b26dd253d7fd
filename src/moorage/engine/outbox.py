"""The outbox: webhook messages that are due are claimed, and sent at once, many at a time.

Every receiver has a lane of its own with few places, so that a slow one holds up nobody else. What does not
fit into a lane's queue is put off in the store until its turn should come at the lane's pace, so that memory
and leases stay bounded however many messages wait for a dead receiver.

There is no polling: the outbox sleeps until `wake`, until the next message is due, or until there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import structlog

from moorage.domain.delivery import Delivery, put_off
from moorage.engine.store_trouble import StoreTrouble
from moorage.engine.webhook_attempt import WebhookAttempt
from moorage.errors import StoreError
from moorage.ports.outside import Clock
from moorage.ports.store import Lease, Store, Update
from moorage.signals import wait_for

log = structlog.get_logger(__name__)

RENEWED_WITHIN = 2 / 3  # of a lease, else it is renewed before a claim; normally it is at one third


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Times in seconds. A lease is renewed while it is held, and outlives one attempt in any case."""

    in_flight: int = 128
    per_receiver: int = 4
    queued_per_receiver: int = 512
    held: int = 2048  # sending and queued
    claim: int = 128  # at once
    lease: float = 60.0
    longest_put_off: float = 300.0
    grace: float = 5.0  # for attempts in flight at shutdown
    idle: float = 30.0  # the longest sleep: a machine that was suspended, a signal that was lost
    let_go: float = 2.0  # for the store to take back the leases at shutdown; then they run out


@dataclass(frozen=True, slots=True)
class _Claimed:
    delivery: Delivery
    token: str


@dataclass(slots=True)
class _Lane:
    """What is on its way to one receiver."""

    sending: int = 0
    waiting: deque[_Claimed] = field(default_factory=deque)
    pace: float = 0.1  # seconds that an attempt takes, as of late
    put_off: int = 0  # messages sent back to the store since the queue was last empty

    def took(self, seconds: float) -> None:
        self.pace = 0.7 * self.pace + 0.3 * seconds

    def turn_after(self, places: int) -> float:
        """Seconds until one more message should get its turn, behind all that wait here and in the store."""
        return (len(self.waiting) + self.put_off + 1) * self.pace / places


class Outbox:
    """Any number of processes may run one on the same store."""

    def __init__(
        self, store: Store, attempt: WebhookAttempt, clock: Clock, limits: OutboxLimits | None = None
    ) -> None:
        self._store = store
        self._attempt = attempt
        self._clock = clock
        self._limits = limits or OutboxLimits()
        self._woken = asyncio.Event()
        self._held: dict[str, _Claimed] = {}  # by delivery id
        self._renewed = clock.now()  # no lease that is held began before
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._running = False
        self._due: datetime | None = None  # when the store has the next one, as it said last

    @property
    def sending(self) -> int:
        """Messages whose receivers are to answer."""
        return len(self._tasks)

    @property
    def waiting(self) -> int:
        """Messages in hand that are behind others to the same receivers."""
        return sum(len(lane.waiting) for lane in self._lanes.values())

    def lag(self, now: datetime) -> float:
        """Seconds that the message is late which is due longest, in hand or, as far as is known, in the
        store."""
        due = [self._due, *(item.delivery.due_at for item in self._held.values())]
        return max(
            ((now - moment).total_seconds() for moment in due if moment is not None and moment < now),
            default=0.0,
        )

    def wake(self) -> None:
        """Something may be due: called after a unit with deliveries was committed."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled. Then nothing new is begun, what waits is let go, what is being sent gets grace."""
        trouble = StoreTrouble("outbox")
        self._running = True
        try:
            async with self._renewing():
                while True:
                    self._woken.clear()
                    try:
                        await self._claim_all()
                        pause = await self._until_due()
                        trouble.worked()
                    except StoreError as error:
                        await asyncio.sleep(trouble.failed(error))
                        continue
                    await wait_for(self._woken, pause)
        finally:
            self._running = False

    async def round(self, seconds: float) -> int:
        """Makes an attempt at each message that is due. What is not sent in time gets grace, and is let go
        of, unless `run` looks after it. Gives how many it claimed."""
        count, trouble = 0, StoreTrouble("outbox.round")
        async with contextlib.nullcontext() if self._running else self._renewing():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while (claimed := await trouble.insist(self._claim_all)) or self._tasks:
                        count += claimed
                        if self._tasks:
                            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        return count

    @contextlib.asynccontextmanager
    async def _renewing(self) -> AsyncIterator[None]:
        """Leases are renewed meanwhile, or nothing goes on: what is sent without them is sent twice. What is
        in hand at the end is let go of."""
        self._closing = False
        async with asyncio.TaskGroup() as tasks:
            renewals = tasks.create_task(self._renew_leases(), name="outbox:renew")
            try:
                yield
            finally:
                self._closing = True
                try:
                    await self._let_go()
                finally:
                    renewals.cancel()

    # -- claiming ---------------------------------------------------------------------------------------

    async def _claim_all(self) -> int:
        """How many were claimed."""
        count = 0
        while (room := min(self._limits.claim, self._limits.held - len(self._held))) > 0:
            now = self._clock.now()
            await self._renew_old(now)
            lease = Lease(secrets.token_hex(16), self._lease_end(self._clock.now()))
            claimed = await self._store.claim_deliveries(lease, now, room)
            sent_back: list[tuple[Delivery, str]] = []
            for delivery in claimed:
                lane = self._lanes.setdefault(_receiver(delivery), _Lane())
                if len(lane.waiting) < self._limits.queued_per_receiver:
                    self._held[delivery.id] = item = _Claimed(delivery, lease.token)
                    lane.waiting.append(item)
                else:
                    sent_back.append((put_off(delivery, self._turn(lane, now)), lease.token))
            self._fill()
            if sent_back:
                await self._release(sent_back)
            count += len(claimed)
            if len(claimed) < room:
                break
        return count

    def _turn(self, lane: _Lane, now: datetime) -> datetime:
        seconds = min(lane.turn_after(self._limits.per_receiver), self._limits.longest_put_off)
        lane.put_off += 1
        return now + timedelta(seconds=seconds)

    async def _until_due(self) -> float:
        """Seconds to sleep unless woken."""
        if len(self._held) >= self._limits.held:
            return self._limits.idle  # an attempt that ends wakes us
        due = self._due = await self._store.next_due("deliveries", self._clock.now())
        if due is None:
            return self._limits.idle
        return min(max(0.0, (due - self._clock.now()).total_seconds()), self._limits.idle)

    # -- sending ----------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Starts what may start, one message a lane in turn, so that no lane takes all the places."""
        started = True
        while started and not self._closing:
            started = False
            for key, lane in list(self._lanes.items()):
                if len(self._tasks) >= self._limits.in_flight:
                    return
                if lane.waiting and lane.sending < self._limits.per_receiver:
                    self._start(key, lane, lane.waiting.popleft())
                    started = True

    def _start(self, key: tuple[str, str], lane: _Lane, item: _Claimed) -> None:
        lane.sending += 1
        loop = asyncio.get_running_loop()
        began = loop.time()
        task = asyncio.create_task(self._send(item), name=f"outbox:{item.delivery.id}")
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            lane.sending -= 1
            lane.took(loop.time() - began)
            if not lane.waiting:
                lane.put_off = 0
                if not lane.sending:
                    self._lanes.pop(key, None)
            if self._held.get(item.delivery.id) is item:
                del self._held[item.delivery.id]
            self._fill()
            self._woken.set()  # it may be due again before what the sleep was measured for

        task.add_done_callback(done)

    async def _send(self, item: _Claimed) -> None:
        """A failure here is ours, not the receiver's: the lease runs out, and the message is sent again."""
        try:
            await self._attempt.make(item.delivery, item.token)
        except Exception:
            log.exception("outbox.attempt_failed", delivery=item.delivery.id)

    # -- leases -----------------------------------------------------------------------------------------

    def _lease_end(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._limits.lease)

    async def _renew_old(self, now: datetime) -> None:
        """Before a claim at `now`, which takes what leases ran out: ours too, when the store was away or
        the process stood still, and what is on its way would be sent again."""
        if now - self._renewed > timedelta(seconds=self._limits.lease * RENEWED_WITHIN):
            await self._renew()

    async def _renew(self) -> None:
        now, held = self._clock.now(), {id_: item.token for id_, item in self._held.items()}
        if held:
            self._drop(held.keys() - await self._store.renew("deliveries", held, self._lease_end(now)))
        self._renewed = now

    async def _renew_leases(self) -> None:
        trouble, pause = StoreTrouble("outbox.renew"), self._limits.lease / 3
        while True:
            await asyncio.sleep(pause)
            pause = self._limits.lease / 3
            try:
                await self._renew()
                trouble.worked()
            except StoreError as error:
                pause = min(pause, trouble.failed(error))

    def _drop(self, lost: set[str]) -> None:
        """What another process took over is not begun here; an attempt under way meets the fence."""
        for lane in self._lanes.values():
            for item in [item for item in lane.waiting if item.delivery.id in lost]:
                lane.waiting.remove(item)
                self._held.pop(item.delivery.id, None)

    async def _release(self, rows: Sequence[tuple[Delivery, str]]) -> None:
        """Best effort: a row that cannot be released is claimed again when its lease runs out."""
        try:
            await self._store.commit([Update(row, lease=token, release=True) for row, token in rows])
        except StoreError as error:
            log.warning("outbox.release_failed", rows=len(rows), error=str(error))

    async def _end_leases(self, held: Mapping[str, str]) -> None:
        """So that another process goes on at once."""
        if held:
            with contextlib.suppress(StoreError, TimeoutError):  # they run out
                async with asyncio.timeout(self._limits.let_go):
                    await self._store.renew("deliveries", held, self._clock.now())

    async def _let_go(self) -> None:
        waiting = [item for lane in self._lanes.values() for item in lane.waiting]
        for lane in self._lanes.values():
            lane.waiting.clear()
        await self._end_leases({item.delivery.id: item.token for item in waiting})
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._limits.grace)
            cut = {id_: item.token for id_, item in self._held.items() if item not in waiting} if late else {}
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            await self._end_leases(cut)
        self._held.clear()
        self._lanes.clear()


def _receiver(delivery: Delivery) -> tuple[str, str]:
    """One lane for all URLs of a host: they are served, or not, by the same machine."""
    return delivery.organization_id, urlsplit(delivery.url).netloc.lower()
