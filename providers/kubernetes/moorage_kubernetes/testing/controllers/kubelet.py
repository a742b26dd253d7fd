"""The kubelet of every node: one task for each pod that has one, from mounting to the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.controllers.owners import deleting
from moorage_kubernetes.testing.controllers.pod_run import PodRun
from moorage_kubernetes.testing.controllers.processes import Command, Start
from moorage_kubernetes.testing.logs import Logs
from moorage_kubernetes.testing.proxy import Address
from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import Change, Key, key_of
from moorage_kubernetes.testing.world import World

_INPUTS = (known.SECRETS, known.CONFIG_MAPS, known.CLAIMS)


def simulated(_: Start) -> Command | None:
    """No process: the pod answers through the shared server."""
    return None


@dataclass
class Kubelet:
    """`ready_seconds` of real time until a simulated pod is ready; `command` gives a pod its process.

    `simulated_port` is where the server of the simulated pods listens.
    """

    world: World
    logs: Logs
    ready_seconds: float
    command: Callable[[Start], Command | None] = simulated
    simulated_port: int = 0
    _runs: dict[str, PodRun] = field(default_factory=dict, init=False)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False)
    broken: list[str] = field(default_factory=list)

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.resource == known.PODS:
            if change.kind == "DELETED":
                self._end(change.object["metadata"]["uid"])
            return [key_of(change.object)] if change.object["spec"].get("nodeName") else []
        if change.resource in _INPUTS:
            namespace = change.object["metadata"]["namespace"]
            return [
                key_of(run.pod) for run in self._runs.values() if run.waits and run.namespace == namespace
            ]
        return []

    def everything(self) -> Iterable[Key]:
        return [key_of(p) for p in self.world.store.of(known.PODS) if p["spec"].get("nodeName")]

    def reconcile(self, key: Key) -> None:
        pod = self.world.store.get(known.PODS, *key)
        if pod is None:
            return
        if self.world.faults.no_kubelet and pod["metadata"]["uid"] not in self._runs:
            if deleting(pod):  # nobody is there to end it gracefully; as a forced deletion does
                self.world.store.remove(known.PODS, pod)
            return
        uid = pod["metadata"]["uid"]
        run = self._runs.get(uid)
        if run is None:
            run = self._runs[uid] = PodRun(self.world, self.logs, pod, self.ready_seconds, self.command)
            self._tasks[uid] = asyncio.create_task(self._run(uid, run))
        run.pod = pod
        run.nudge()

    def address(self, pod: Json, port: int) -> Address | None:
        """Where a container port of the pod is."""
        run = self._runs.get(pod["metadata"]["uid"])
        if run is None or not run.running:
            return None
        if run.port is not None:
            return Address("127.0.0.1", run.port, {})
        headers = {"X-Stand-In-Pod": pod["metadata"]["uid"], "X-Stand-In-Port": str(port)}
        return Address("127.0.0.1", self.simulated_port, headers)

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self, uid: str, run: PodRun) -> None:
        try:
            await run.live()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # it must fail the test that met it
            self.broken.append(f"pod {run.name}: {error!r}")
            raise
        finally:
            await run.close()
            self._runs.pop(uid, None)
            self._tasks.pop(uid, None)
            self.logs.forget(uid)

    def _end(self, uid: str) -> None:
        """The pod was taken away: without grace."""
        task = self._tasks.get(uid)
        if task is not None and not self._runs[uid].ending:
            task.cancel()
