"""A provider that lives in memory, with every fault a real one has, switchable.

It is in two parts, as reality is. `InProcessCompute` is the outside: what runs there, what it costs, what
goes wrong. It outlives a service. `InProcessProvider` is the adapter a service holds; several of them, one
after the other or at the same time, may look at one compute. An endpoint costs a few small objects, so that
benchmarks can hold 10,000 of them.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from moorage.domain.compute import Availability, Bill, Feature, Offer, Requirements
from moorage.domain.deployment import Handle
from moorage.domain.observation import Observation, Replica, ReplicaState, Trouble
from moorage.errors import Gone, NoCapacity, PermissionMissing, ProviderError, Retry, Unauthorized
from moorage.ports.provider import Absent, Account, Credentials, LogLine, RevisionPlan, StillThere

GB = 10**9
Call = Literal[
    "check_credentials", "offers", "find", "create", "observe", "apply", "stop", "wake", "delete", "owned"
]
ReplicaUrl = Callable[[str, int], str]  # (external name, replica index) -> base URL


def cpu_offer(
    offer_id: str = "fake-cpu", *, provider: str = "fake", memory_gb: float = 64, price: float = 0.05
) -> Offer:
    """A CPU offer with the honest minimum of fields."""
    return Offer(
        id=offer_id,
        provider=provider,
        gpu=None,
        count=0,
        memory_bytes=int(memory_gb * GB),
        usable_bytes=int(memory_gb * GB),
        price_per_hour=price,
        price_source="made up for tests",
        price_as_of="2026-01-01",
        availability=Availability.HIGH,
    )


@dataclass(slots=True)
class Faults:
    """What goes wrong now. Every field may be changed while things run; the sets hold offer ids."""

    no_capacity: set[str] = field(default_factory=set)  # create raises NoCapacity
    throttled: set[str] = field(default_factory=set)  # created, but observed as Trouble.NO_CAPACITY
    crash_loop: set[str] = field(default_factory=set)  # created, but observed as Trouble.CRASH_LOOP
    never_ready: set[str] = field(default_factory=set)  # created, and starting for ever
    slow: dict[Call, float] = field(default_factory=dict)  # seconds a call takes before it acts
    still_there: int = 0  # how often a delete answers StillThere before Absent
    accepted_token: str | None = None  # set: credentials["token"] must be this
    _raise: defaultdict[Call, deque[ProviderError]] = field(default_factory=lambda: defaultdict(deque))
    _lose: Counter[Call] = field(default_factory=Counter)

    def raise_next(self, call: Call, error: ProviderError, times: int = 1) -> None:
        """The next `times` calls raise `error` and do nothing."""
        self._raise[call].extend([error] * times)

    def lose_next(self, call: Call, times: int = 1) -> None:
        """The next `times` calls do all they should, and then raise Retry: the answer got lost."""
        self._lose[call] += times

    async def before(self, call: Call) -> None:
        if delay := self.slow.get(call):
            await asyncio.sleep(delay)
        if self._raise[call]:
            raise self._raise[call].popleft()

    def after(self, call: Call) -> None:
        if self._lose[call] > 0:
            self._lose[call] -= 1
            raise Retry(f"the answer to {call} got lost", after=0.01)


@dataclass(slots=True)
class Endpoint:
    """One thing that runs. `still_there` counts down while it is being deleted."""

    name: str
    id: str
    plan: RevisionPlan
    ready_at: float
    replicas: int
    lines: list[LogLine] = field(default_factory=list)
    deleting: bool = False
    still_there: int = 0
    crashed: tuple[str, ...] | None = None
    gone: bool = False
    grown: asyncio.Event | None = None  # made when somebody follows the log
    asleep: bool = False  # its autoscaler let the last replica go


class InProcessCompute:
    """The outside world of one or more `InProcessProvider`s."""

    def __init__(
        self,
        offers: Sequence[Offer] | None = None,
        *,
        name: str = "fake",
        ready_after: float = 0.0,
        replica_url: ReplicaUrl = lambda name, index: f"http://127.0.0.1:9/{name}/{index}",
        room: Mapping[str, int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`room` says how many replicas an offer id can hold; one that is not in it holds any number."""
        self.name = name
        self.offers = list(offers) if offers is not None else [cpu_offer(provider=name)]
        self.ready_after = ready_after
        self.replica_url = replica_url
        self.room = dict(room or {})
        self.faults = Faults()
        self.endpoints: dict[str, Endpoint] = {}
        self.creates: Counter[str] = Counter()  # endpoints really made, by name: adoption does not count
        self.deletes: Counter[str] = Counter()  # endpoints really removed, by name
        self.calls: Counter[str] = Counter()
        self._monotonic = monotonic
        self._ids = itertools.count(1)
        self._watchers: set[asyncio.Queue[str | None]] = set()

    # -- what a test does to the world --

    def crash(self, name: str, lines: Sequence[str] = ("Traceback …", "RuntimeError: out of luck")) -> None:
        """The endpoint's replicas fall into a crash loop, with `lines` as their last words."""
        endpoint = self._get(name)
        endpoint.crashed = tuple(lines)
        for line in lines:
            self.log(name, line)
        self.notify(name)

    def vanish(self, name: str) -> None:
        """The endpoint is gone, and nobody asked for it."""
        self._remove(self._get(name))

    def add_stray(self, name: str, plan: RevisionPlan) -> None:
        """An endpoint under our tag that no deployment made."""
        self._start(plan, name)

    def sleep(self, name: str) -> None:
        """The endpoint's autoscaler lets the last replica go."""
        self._get(name).asleep = True
        self.notify(name)

    def log(self, name: str, text: str) -> None:
        endpoint = self._get(name)
        endpoint.lines.append(LogLine(datetime.now(UTC), "0", text))
        if endpoint.grown is not None:
            endpoint.grown.set()

    def notify(self, name: str) -> None:
        for queue in self._watchers:
            queue.put_nowait(name)

    # -- what the provider does to it --

    def create(self, plan: RevisionPlan, name: str) -> Endpoint:
        """Adopts or makes, without an await between looking and making: there can be only one."""
        endpoint = self.endpoints.get(name)
        if endpoint is not None:
            return endpoint
        if plan.offer.id in self.faults.no_capacity or not self._fits(plan):
            raise NoCapacity(f"no room for {plan.replicas} replica(s) on {plan.offer.id}")
        return self._start(plan, name)

    def observe(self, name: str) -> Observation:
        endpoint = self._get(name)
        offer = endpoint.plan.offer.id
        if offer in self.faults.throttled:
            return Observation((), trouble=Trouble.NO_CAPACITY, message=f"{offer} stays throttled")
        if offer in self.faults.crash_loop or endpoint.crashed is not None:
            lines = endpoint.crashed or ("RuntimeError: this offer crashes",)
            stopped = self._replicas(endpoint, ReplicaState.STOPPED)
            return Observation(stopped, None, Trouble.CRASH_LOOP, "the worker exits again and again", lines)
        if endpoint.deleting:
            return Observation(self._replicas(endpoint, ReplicaState.STOPPED), stage="deleting")
        if endpoint.asleep or not endpoint.replicas:
            return Observation((), asleep=endpoint.asleep)
        if offer in self.faults.never_ready or self._monotonic() < endpoint.ready_at:
            return Observation(self._replicas(endpoint, ReplicaState.STARTING), stage="loading")
        return Observation(self._replicas(endpoint, ReplicaState.READY))

    def apply(self, name: str, plan: RevisionPlan) -> Endpoint:
        endpoint = self._get(name)
        if endpoint.plan != plan or endpoint.replicas != plan.replicas:
            endpoint.plan, endpoint.replicas = plan, plan.replicas
            self.notify(name)
        return endpoint

    def stop(self, name: str) -> Absent | StillThere:
        endpoint = self._get(name)
        endpoint.replicas = 0
        self.notify(name)
        return Absent()

    def wake(self, name: str) -> None:
        endpoint = self._get(name)
        endpoint.asleep = False
        self.notify(name)

    def delete(self, name: str) -> Absent | StillThere:
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            return Absent()
        if not endpoint.deleting:
            endpoint.deleting, endpoint.still_there = True, self.faults.still_there
        if endpoint.still_there > 0:
            endpoint.still_there -= 1
            return StillThere(after=0.01)
        self._remove(endpoint)
        return Absent()

    async def log_lines(self, name: str, tail: int, follow: bool) -> AsyncIterator[LogLine]:
        endpoint = self._get(name)
        seen = max(0, len(endpoint.lines) - tail)
        while True:
            endpoint.grown = endpoint.grown or asyncio.Event()
            endpoint.grown.clear()
            for line in endpoint.lines[seen:]:
                seen += 1
                yield line
            if not follow or endpoint.gone:
                return
            await endpoint.grown.wait()

    def subscribe(self) -> asyncio.Queue[str | None]:
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._watchers.add(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[str | None]) -> None:
        self._watchers.discard(queue)

    def _get(self, name: str) -> Endpoint:
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            raise Gone(f"nothing is named {name}")
        return endpoint

    def _fits(self, plan: RevisionPlan) -> bool:
        offer = next((o for o in self.offers if o.id == plan.offer.id), None)
        if offer is None or plan.memory_bytes > offer.usable_bytes:
            return False
        room = self.room.get(offer.id)
        if room is None:
            return True
        taken = sum(e.replicas for e in self.endpoints.values() if e.plan.offer.id == offer.id)
        return taken + plan.replicas <= room

    def _start(self, plan: RevisionPlan, name: str) -> Endpoint:
        ready_at = self._monotonic() + self.ready_after
        endpoint = Endpoint(name, f"ep-{next(self._ids)}", plan, ready_at, plan.replicas)
        self.endpoints[name] = endpoint
        self.creates[name] += 1
        self.log(name, "starting")
        self.notify(name)
        if self.ready_after > 0:
            asyncio.get_running_loop().call_later(self.ready_after, self.notify, name)
        return endpoint

    def _remove(self, endpoint: Endpoint) -> None:
        del self.endpoints[endpoint.name]
        self.deletes[endpoint.name] += 1
        endpoint.gone = True
        if endpoint.grown is not None:
            endpoint.grown.set()
        self.notify(endpoint.name)

    def _replicas(self, endpoint: Endpoint, state: ReplicaState) -> tuple[Replica, ...]:
        ready = state is ReplicaState.READY
        return tuple(
            Replica(str(i), state, self.replica_url(endpoint.name, i) if ready else None)
            for i in range(endpoint.replicas)
        )


class InProcessProvider:
    """`Provider`, `Logs` and `Watch` on an `InProcessCompute`."""

    def __init__(
        self, compute: InProcessCompute | None = None, *, unsupported: Mapping[Feature, str] | None = None
    ) -> None:
        self.compute = compute or InProcessCompute()
        self.name = self.compute.name
        self.unsupported: Mapping[Feature, str] = dict(unsupported or {})
        self.credential_fields: Mapping[str, str] = {}
        self._watches: set[asyncio.Queue[str | None]] = set()

    async def check_credentials(self, credentials: Credentials | None) -> Account:
        await self._enter("check_credentials", credentials)
        return Account("fake-account", "an account in memory")

    async def offers(self, need: Requirements, credentials: Credentials | None) -> Sequence[Offer]:
        await self._enter("offers", credentials)
        return tuple(self.compute.offers)

    async def find(self, name: str, credentials: Credentials | None) -> Handle | None:
        await self._enter("find", credentials)
        endpoint = self.compute.endpoints.get(name)
        return None if endpoint is None else self._handle(endpoint)

    async def create(self, plan: RevisionPlan, name: str, credentials: Credentials | None) -> Handle:
        await self._enter("create", credentials)
        endpoint = self.compute.create(plan, name)
        self.compute.faults.after("create")
        return self._handle(endpoint)

    async def observe(self, handle: Handle, credentials: Credentials | None) -> Observation:
        await self._enter("observe", credentials)
        return self.compute.observe(handle.name)

    async def apply(self, handle: Handle, plan: RevisionPlan, credentials: Credentials | None) -> Handle:
        await self._enter("apply", credentials)
        endpoint = self.compute.apply(handle.name, plan)
        self.compute.faults.after("apply")
        return self._handle(endpoint)

    async def delete(self, handle: Handle, credentials: Credentials | None) -> Absent | StillThere:
        await self._enter("delete", credentials)
        answer = self.compute.delete(handle.name)
        self.compute.faults.after("delete")
        return answer

    async def owned(self, credentials: Credentials | None) -> AsyncIterator[Handle]:
        await self._enter("owned", credentials)
        for endpoint in list(self.compute.endpoints.values()):
            yield self._handle(endpoint)

    async def logs(
        self, handle: Handle, credentials: Credentials | None, *, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        async for line in self.compute.log_lines(handle.name, tail, follow):
            yield line

    async def watch(self, credentials: Credentials | None) -> AsyncIterator[str]:
        queue = self.compute.subscribe()
        self._watches.add(queue)
        try:
            while (name := await queue.get()) is not None:
                yield name
        finally:
            self.compute.unsubscribe(queue)
            self._watches.discard(queue)

    async def aclose(self) -> None:
        for queue in self._watches:
            queue.put_nowait(None)

    async def _enter(self, call: Call, credentials: Credentials | None) -> None:
        self.compute.calls[call] += 1
        token = self.compute.faults.accepted_token
        if token is not None and (credentials is None or credentials.values.get("token") != token):
            raise Unauthorized("the token is refused", advice="give the token of this provider's account")
        await self.compute.faults.before(call)

    def _handle(self, endpoint: Endpoint) -> Handle:
        return Handle(self.name, endpoint.name, {"id": endpoint.id})


class InProcessSleeper(InProcessProvider):
    """An `InProcessProvider` with `Stop` and `Wake`."""

    async def stop(self, handle: Handle, credentials: Credentials | None) -> Absent | StillThere:
        await self._enter("stop", credentials)
        answer = self.compute.stop(handle.name)
        self.compute.faults.after("stop")
        return answer

    async def wake(self, handle: Handle, credentials: Credentials | None) -> None:
        await self._enter("wake", credentials)
        self.compute.wake(handle.name)
        self.compute.faults.after("wake")


class InProcessVendor(InProcessProvider):
    """An `InProcessProvider` that sells to accounts: its keys (`fake_…`) are bearer tokens too, and it tells
    what it charged. `Faults.accepted_token` is the one key that it takes, `weak_token` one that opens too
    little."""

    def __init__(self, compute: InProcessCompute, *, token: str, weak_token: str | None = None) -> None:
        super().__init__(compute)
        compute.faults.accepted_token = token
        self.credential_fields = {"token": "a key of this vendor (fake_…)"}
        self._weak_token = weak_token

    def credentials_of(self, bearer: str) -> Credentials | None:
        return Credentials({"token": bearer}) if bearer.startswith("fake_") else None

    async def billed(self, handle: Handle, credentials: Credentials | None, since: datetime) -> Bill:
        await self._enter("observe", credentials)
        return Bill(0.25, since, datetime.now(UTC))

    async def _enter(self, call: Call, credentials: Credentials | None) -> None:
        token = None if credentials is None else credentials.values.get("token")
        if token is not None and token == self._weak_token:
            raise PermissionMissing("the key may not do this", advice="give it the permission to write")
        await super()._enter(call, credentials)
