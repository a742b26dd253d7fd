"""The driver `local`: worker processes on this machine, as a `Provider` with `Logs` and `Watch`.

Nothing here touches a file or a process on the event loop: `Endpoints` does, in a thread. What runs belongs
to the supervisors on disk, not to this object; closing it, or killing the service, stops no model.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import ParamSpec, TypeVar

from moorage.domain.compute import GB, Feature, Offer, Requirements
from moorage.domain.deployment import Handle
from moorage.domain.observation import Observation
from moorage.errors import FieldError, Gone, NoCapacity, Rejected, Retry
from moorage.ports.provider import Absent, Account, Credentials, LogLine, RevisionPlan, StillThere
from moorage_managed import machine, worker
from moorage_managed.capacity import Room, room
from moorage_managed.endpoints import Endpoints, Shim
from moorage_managed.folders import DataFolder, possible_name
from moorage_managed.gpus import Gpu, read_gpus
from moorage_managed.listener import Listener
from moorage_managed.log_files import StoredLine, read_since, read_tail
from moorage_managed.observing import hopeless, observation
from moorage_managed.offers import CPU_OFFER, Market, make_offers
from moorage_managed.settings import PREFIX, LocalSettings
from moorage_managed.spec import EndpointSpec
from moorage_managed.worker_command import endpoint_spec, refuse_unsafe

GIB = 1024**3
WAIT_FOR_STOP = 0.5  # a delete waits so long itself before it answers StillThere
STILL_THERE_SECONDS = 0.1
FOLLOW_SECONDS = 0.2  # a file tells nobody that it grew; looked at only while somebody follows
SHIM_DEATHS, SHIM_DEATHS_SECONDS = 10, 30.0

P = ParamSpec("P")
T = TypeVar("T")


class LocalProvider:
    name = "managed"
    unsupported: Mapping[Feature, str] = {
        Feature.CONTAINER_IMAGE: "the local driver runs worker processes, not containers",
        Feature.SPOT: "this machine is not sold as spot capacity",
        Feature.REGION: "this machine has no region",
        Feature.SERVERLESS: "the local driver keeps min_replicas processes and does not scale by workers",
        Feature.WORKLOAD: "the local driver runs worker processes, not containers",
        Feature.CLUSTER: "the local driver runs on this machine, not on a cluster",
        Feature.MODEL_CACHE: "the local driver keeps downloaded weights on this machine's disk anyway",
    }
    credential_fields: Mapping[str, str] = {}

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings
        data = DataFolder(settings.data_dir)
        self._endpoints = Endpoints(data)
        self._listener = Listener(data.notify)
        self._prepared: asyncio.Task[None] | None = None
        self._revivals: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=SHIM_DEATHS))

    def home(self) -> str | None:
        """The machine on which alone all this can be seen."""
        return self._settings.machine

    async def check_credentials(self, credentials: Credentials | None) -> Account:
        """Whoever may use this service may use its machine."""
        return Account("local", f"this machine ({os.uname().nodename})")

    async def offers(self, need: Requirements, credentials: Credentials | None) -> Sequence[Offer]:
        market = await self._blocking(self._market)
        return make_offers(need, market, self._settings)

    async def find(self, name: str, credentials: Credentials | None) -> Handle | None:
        there = await self._blocking(self._endpoints.exists, name)
        return self._handle(name) if there else None

    async def create(self, plan: RevisionPlan, name: str, credentials: Credentials | None) -> Handle:
        """A name is adopted as it is; `apply` changes it."""
        refuse_unsafe(plan)
        _check_name(name)
        shim = await self._blocking(self._endpoints.create, name, lambda: self._reserve(plan, name))
        self._started(name, shim)
        return self._handle(name)

    async def observe(self, handle: Handle, credentials: Credentials | None) -> Observation:
        """Also starts the supervisor again if it has died; its replicas are STOPPED for that moment."""
        name = handle.name
        sight = await self._blocking(self._endpoints.look, name)
        if sight.shim is None and not sight.deleting and not self._listener.knows_alive(name):
            deaths = self._deaths(name)
            if deaths >= SHIM_DEATHS:
                tail = await self._blocking(self._endpoints.shim_log_tail, name, 20)
                return hopeless(sight.spec, deaths, tail)
            sight = await self._blocking(self._endpoints.revive, name)
            if sight.started is not None:
                self._revivals[name].append(time.monotonic())
                self._started(name, sight.started)
        elif sight.shim is not None:
            self._listener.watch_shim(name, sight.shim)
        return observation(sight)

    async def apply(self, handle: Handle, plan: RevisionPlan, credentials: Credentials | None) -> Handle:
        """A change of `replicas` starts or stops replicas; any other change starts all of them afresh."""
        refuse_unsafe(plan)
        name = handle.name
        shim = await self._blocking(self._endpoints.change, name, lambda old: self._revise(plan, old))
        self._started(name, shim)
        return self._handle(name)

    async def delete(self, handle: Handle, credentials: Credentials | None) -> Absent | StillThere:
        name = handle.name
        end = time.monotonic() + WAIT_FOR_STOP
        while not (step := await self._blocking(self._endpoints.remove, name)).gone:
            left = end - time.monotonic()
            if left <= 0:
                return StillThere(STILL_THERE_SECONDS)
            if step.shim is None:
                await asyncio.sleep(
                    0.01
                )  # the supervisor has not written its name yet, or a kill is under way
            elif not await self._listener.shim_over(name, step.shim, left):
                return StillThere(STILL_THERE_SECONDS)
        self._listener.forget(name)
        self._revivals.pop(name, None)
        self._listener.publish(name)
        return Absent()

    async def owned(self, credentials: Credentials | None) -> AsyncIterator[Handle]:
        for name in await self._blocking(self._endpoints.names):
            yield self._handle(name)

    async def logs(
        self, handle: Handle, credentials: Credentials | None, *, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        name = handle.name
        folder = await self._blocking(self._endpoints.logs, name)
        with self._listener.subscribe() as changes:
            lines, place = await self._blocking(read_tail, folder, tail)
            while True:
                for line in lines:
                    yield _log_line(line)
                if not follow or not await self._blocking(self._endpoints.exists, name):
                    return
                if not lines and not await _change(changes, FOLLOW_SECONDS):
                    return
                lines, place = await self._blocking(read_since, folder, place)

    async def watch(self, credentials: Credentials | None) -> AsyncIterator[str]:
        """Begins with the names whose supervisor died while nobody listened."""
        await self._prepare()
        with self._listener.subscribe() as changes:
            for name in await self._blocking(self._endpoints.names):
                try:
                    sight = await self._blocking(self._endpoints.look, name)
                except Gone:
                    continue
                if sight.shim is not None:
                    self._listener.watch_shim(name, sight.shim)
                else:
                    yield name
            while (changed := await changes.get()) is not None:
                yield changed

    async def aclose(self) -> None:
        self._listener.close()

    # -- capacity; called in a thread, with the mutex held where something is reserved --

    def _market(self) -> Market:
        memory = machine.memory()
        gpus = [(gpu, self._gpu_room(gpu)) for gpu in read_gpus()]
        engines = worker.engines() if self._settings.own_worker else None
        return Market(memory.total, self._cpu_room(), gpus, engines)

    def _cpu_room(self, *, leave_out: str | None = None) -> Room:
        memory = machine.memory()
        budget = self._settings.memory_bytes if self._settings.memory_bytes is not None else memory.budget
        return room(budget, memory.available, self._endpoints.reservations(leave_out=leave_out))

    def _gpu_room(self, gpu: Gpu, *, leave_out: str | None = None) -> Room:
        held = self._endpoints.reservations(gpu=gpu.uuid, leave_out=leave_out)
        return room(gpu.usable, gpu.usable, held)

    def _reserve(self, plan: RevisionPlan, name: str, *, leave_out: str | None = None) -> EndpointSpec:
        """The spec, if there is room for it. Raises NoCapacity with the numbers."""
        gpu = self._gpu(plan)
        spec = endpoint_spec(
            plan,
            name,
            self._settings,
            service_env=os.environ,
            tasks=worker.TASKS,
            gpu=gpu.uuid if gpu is not None else None,
        )
        if gpu is not None:
            _require(self._gpu_room(gpu, leave_out=leave_out), spec.gpu_bytes * spec.replicas, gpu.offer_id)
        _require(self._cpu_room(leave_out=leave_out), spec.memory_bytes * spec.replicas, CPU_OFFER)
        return spec

    def _revise(self, plan: RevisionPlan, old: EndpointSpec) -> EndpointSpec:
        if plan.replicas > old.replicas or plan.memory_bytes > max(old.memory_bytes, old.gpu_bytes):
            return self._reserve(plan, old.name, leave_out=old.name)
        new = endpoint_spec(
            plan, old.name, self._settings, service_env=os.environ, tasks=worker.TASKS, gpu=old.gpu
        )
        return replace(new, offer_id=old.offer_id)

    def _gpu(self, plan: RevisionPlan) -> Gpu | None:
        if plan.offer.id == CPU_OFFER:
            return None
        gpu = next((g for g in read_gpus() if g.offer_id == plan.offer.id), None)
        if gpu is None:
            raise NoCapacity(f"{plan.offer.id} is not on this machine (any more)")
        return gpu

    # -- small ones --

    async def _blocking(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await self._prepare()
        try:
            return await asyncio.to_thread(do, *args, **kwargs)
        except OSError as error:
            raise Retry(f"this machine refused: {error}", after=1.0) from error

    async def _prepare(self) -> None:
        if self._prepared is None or (self._prepared.done() and self._prepared.exception() is not None):
            self._prepared = asyncio.create_task(asyncio.to_thread(self._endpoints.prepare))
        try:
            await asyncio.shield(self._prepared)
        except OSError as error:
            raise Retry(f"the folder {self._settings.data_dir} cannot be used: {error}", after=5.0) from error

    def _started(self, name: str, shim: Shim | None) -> None:
        if shim is not None:
            self._listener.started(name, shim)

    def _deaths(self, name: str) -> int:
        since = time.monotonic() - SHIM_DEATHS_SECONDS
        return sum(at > since for at in self._revivals.get(name, ()))

    def _handle(self, name: str) -> Handle:
        return Handle(self.name, name)


def _check_name(name: str) -> None:
    if not possible_name(name):
        error = FieldError("name", "dns_label", f"must be a DNS label; it is {name!r}")
        raise Rejected(f"{name!r} is no DNS label", fields=[error])


def _require(have: Room, wanted: int, what: str) -> None:
    if wanted <= have.free:
        return
    free, budget = f"{have.free / GB:.2f} GB", f"{have.budget / GB:.2f} GB"
    raise NoCapacity(
        f"{what}: {wanted / GB:.2f} GB are needed, {free} of {budget} are free",
        advice=f"delete a deployment, take a smaller model, or raise {PREFIX}MEMORY_GB if there is more",
    )


def _log_line(line: StoredLine) -> LogLine:
    return LogLine(line.at, line.replica, line.text)


async def _change(changes: asyncio.Queue[str | None], seconds: float) -> bool:
    """Waits for any change, at most so long; False when the provider was closed."""
    try:
        async with asyncio.timeout(seconds):
            return await changes.get() is not None
    except TimeoutError:
        return True
