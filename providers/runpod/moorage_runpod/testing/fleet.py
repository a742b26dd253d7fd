"""Carries out what the scheduler decides: workers come, are placed, run, crash, and go.

One task looks whenever something changed or a time has come; each worker with a machine has its own task.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Sequence
from typing import Protocol

from moorage_runpod.testing.cloud import Cloud, Endpoint
from moorage_runpod.testing.faults import named
from moorage_runpod.testing.logs import SYSTEM, Log
from moorage_runpod.testing.scheduler import Lack, Load, Placement, place, plan
from moorage_runpod.testing.worker import Worker, new_id

RESTART_SECONDS = 0.2  # before a worker that crashed starts again; doubled each time
LONGEST_RESTART_SECONDS = 5.0


class Runner(Protocol):
    """A way to run a worker."""

    async def run(self, worker: Worker, endpoint: Endpoint) -> int:
        """Runs it until it ends; gives the exit code. Cancelled: stops it and leaves nothing behind."""
        ...


class Fleet:
    def __init__(self, cloud: Cloud, runner: Runner) -> None:
        self._cloud = cloud
        self._runner = runner
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._cloud.wake = self._woken.set
        self._cloud.on_delete = self._emptied
        self._task = asyncio.create_task(self._run(), name="fake-runpod-fleet")

    async def stop(self) -> None:
        """Ends all workers; returns when none is left."""
        self._cloud.wake = lambda: None
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for endpoint in self._cloud.endpoints.values():
            self._emptied(endpoint)
        while self._cloud.leaving:
            await asyncio.wait(self._cloud.leaving)

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            now = self._cloud.clock()
            waits = [w for e in list(self._cloud.endpoints.values()) if (w := self._look(e, now)) is not None]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), max(0.001, min(waits)) if waits else None)

    def _look(self, endpoint: Endpoint, now: float) -> float | None:
        """Does what is to do for one endpoint; gives the seconds until time alone changes something."""
        endpoint.queue.expire(now)
        for worker in endpoint.workers.values():
            worker.note(now)
        views = [w.view(endpoint.version) for w in endpoint.workers.values()]
        decided = plan(endpoint.spec, views, _load(endpoint, now), now)
        for worker_id in decided.stop:
            self._end(endpoint, endpoint.workers[worker_id])
        for _ in range(decided.start):
            self._begin(endpoint, now)
        for worker in endpoint.workers.values():
            if worker.task is None:
                self._place(endpoint, worker)
        due = endpoint.queue.next_due()
        waits = [decided.look_again, None if due is None else due - now]
        return min((w for w in waits if w is not None), default=None)

    # -- workers ------------------------------------------------------------------------------------

    def _begin(self, endpoint: Endpoint, now: float) -> None:
        if self._where(endpoint) is Lack.ABSENT:
            return
        worker_id = new_id()
        worker = Worker(
            id=worker_id,
            endpoint_id=endpoint.id,
            spec=endpoint.spec,
            version=endpoint.version,
            created_at=now,
            log=Log(self._cloud.clock),
            jobs=lambda: len(endpoint.queue.held_by(worker_id)),
        )
        endpoint.workers[worker.id] = worker
        endpoint.releases[0]["workerCount"] += 1
        endpoint.changes.tell()

    def _place(self, endpoint: Endpoint, worker: Worker) -> None:
        where = self._where(endpoint)
        if isinstance(where, Placement):
            worker.placement = where
            worker.task = asyncio.create_task(self._live(endpoint, worker), name=f"worker-{worker.id}")
            worker.task.add_done_callback(self._ended)
            endpoint.changes.tell()

    def _where(self, endpoint: Endpoint) -> Placement | Lack:
        faults = self._cloud.faults
        centers = self._cloud.volume_centers(endpoint.spec)
        return place(endpoint.spec, self._cloud.catalog, centers, faults.throttled_pools, faults.absent_pools)

    async def _live(self, endpoint: Endpoint, worker: Worker) -> None:
        placement = worker.placement
        assert placement is not None
        worker.log.write(f"create container {worker.spec.image}", SYSTEM)
        pause = RESTART_SECONDS
        usage = None
        try:
            while True:
                await endpoint.changes.until(lambda: None if self._held_back(endpoint) else True)
                worker.started_at = self._cloud.clock()
                usage = usage or self._cloud.meter.start(
                    endpoint.account.name, endpoint.id, placement.price, worker.started_at
                )
                worker.log.write(f"start container for {worker.spec.image}: begin", SYSTEM)
                code = await self._run_once(endpoint, worker)
                endpoint.queue.worker_lost(worker.id, self._cloud.clock())
                if worker.refresh:
                    self._forget(endpoint, worker)
                    return
                worker.went_down()
                worker.log.write(f"worker exited with exit code {code}", SYSTEM)
                self._changed(endpoint)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_RESTART_SECONDS)
        finally:
            if usage is not None:
                usage.until = self._cloud.clock()

    async def _run_once(self, endpoint: Endpoint, worker: Worker) -> int:
        if self._named(endpoint, self._cloud.faults.crash_loops):
            for line in self._cloud.faults.crash_lines:
                worker.log.write(line)
            return 1
        return await self._runner.run(worker, endpoint)

    def _held_back(self, endpoint: Endpoint) -> bool:
        return self._named(endpoint, self._cloud.faults.never_ready)

    def _named(self, endpoint: Endpoint, patterns: Sequence[str] | frozenset[str]) -> bool:
        return named(patterns, endpoint.id, endpoint.spec.name, endpoint.spec.image)

    def _changed(self, endpoint: Endpoint) -> None:
        endpoint.changes.tell()
        self._woken.set()

    # -- ends ---------------------------------------------------------------------------------------

    def _emptied(self, endpoint: Endpoint) -> None:
        for worker in list(endpoint.workers.values()):
            self._end(endpoint, worker)

    def _end(self, endpoint: Endpoint, worker: Worker) -> None:
        self._forget(endpoint, worker)
        endpoint.queue.worker_lost(worker.id, self._cloud.clock())
        if worker.task is not None and not worker.task.done():
            worker.task.cancel()
            self._cloud.leaving.add(worker.task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._cloud.leaving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            told = "".join(traceback.format_exception(error))
            self._cloud.records.broken_answers.append(f"{task.get_name()} failed: {told}")
        self._cloud.changed()

    def _forget(self, endpoint: Endpoint, worker: Worker) -> None:
        endpoint.workers.pop(worker.id, None)
        worker.log.close()
        self._changed(endpoint)


def _load(endpoint: Endpoint, now: float) -> Load:
    if endpoint.spec.balanced:
        serving = sum(w.serving for w in endpoint.workers.values())
        return Load(endpoint.waiting, serving)
    queued = endpoint.queue.queued
    oldest = max((now - j.queued_at for j in queued), default=0.0)
    return Load(len(queued), endpoint.queue.counts()["inProgress"], oldest)
