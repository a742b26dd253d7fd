"""One pod's life on its node: mounts, image, configuration, running, restarting, ending."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.controllers.container_env import ConfigError, environment
from moorage_kubernetes.testing.controllers.owners import deleting
from moorage_kubernetes.testing.controllers.pod_status import Containers, status_of
from moorage_kubernetes.testing.controllers.processes import (
    Command,
    Running,
    Start,
    answers,
    free_port,
    start,
)
from moorage_kubernetes.testing.faults import hits
from moorage_kubernetes.testing.logs import Log, Logs
from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import key_of
from moorage_kubernetes.testing.world import World

PROBE_SECONDS = 0.05
_FIRST_BACK_OFF, _MOST_BACK_OFF = 10.0, 300.0
_IMAGE = re.compile(r"^[a-z0-9]([a-z0-9._\-/:]*[a-z0-9])?(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?$")


class PodRun:
    """`port` is the process's, None for a simulated pod; `ending` once it is being deleted."""

    def __init__(
        self,
        world: World,
        logs: Logs,
        pod: Json,
        ready_seconds: float,
        command: Callable[[Start], Command | None],
    ) -> None:
        self.pod = pod
        self.port: int | None = None
        self.running = False
        self.waits = True
        self.ending = False
        self._world = world
        self._logs = logs
        self._ready_seconds = ready_seconds
        self._command = command
        self._state = Containers()
        self._nudged = asyncio.Event()
        self._processes: list[Running] = []

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.pod["metadata"]["namespace"])

    def nudge(self) -> None:
        """Something that the pod may wait for has changed."""
        self._nudged.set()

    async def live(self) -> None:
        """From its node to its end."""
        self._publish()
        back_off = _FIRST_BACK_OFF
        if await self._mounted() and await self._pulled():
            while await self._configured():
                await self._once()
                if deleting(self.pod):
                    break
                self._publish()
                self._state.restarts += 1
                told = f"back-off {int(back_off)}s restarting failed container={self._container['name']}"
                self._state.waits("CrashLoopBackOff", f"{told} pod={self.name}_{self.namespace}")
                self._event("BackOff", f"Back-off restarting failed container in pod {self.name}")
                self._publish()
                await self._pause(back_off)
                if deleting(self.pod):
                    break
                back_off = min(back_off * 2, _MOST_BACK_OFF)
        self._gone()

    async def close(self) -> None:
        for process in self._processes:
            await process.kill()

    @property
    def _container(self) -> Json:
        found: Json = self.pod["spec"]["containers"][0]
        return found

    def _publish(self) -> None:
        held = self._world.store.get(known.PODS, *key_of(self.pod))
        if held is not None and held["metadata"]["uid"] == self.pod["metadata"]["uid"]:
            self.pod = self._world.set_status(known.PODS, held, status_of(held, self._state))

    def _event(self, reason: str, message: str, *, normal: bool = False) -> None:
        self._world.event(self.pod, reason, message, normal=normal, source="kubelet")

    def _gone(self) -> None:
        """The pod's processes have ended: the object may go."""
        self.ending = True
        self.running = False
        held = self._world.store.get(known.PODS, *key_of(self.pod))
        if held is not None and deleting(held) and not held["metadata"].get("finalizers"):
            self._world.store.remove(known.PODS, held)

    async def _until(self, waits: Callable[[], bool], tell: Callable[[], None]) -> bool:
        """Waits while `waits`, telling at first; whether the pod is still wanted."""
        self.waits = True
        told = False
        while waits() and not deleting(self.pod):
            if not told:
                tell()
                self._publish()
                told = True
            self._nudged.clear()
            await self._nudged.wait()
        self.waits = False
        return not deleting(self.pod)

    async def _pause(self, seconds: float) -> None:
        """So many seconds of cluster time, or until the pod is deleted."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds / self._world.speed
        while not deleting(self.pod) and (left := until - loop.time()) > 0:
            self._nudged.clear()
            try:
                async with asyncio.timeout(left):
                    await self._nudged.wait()
            except TimeoutError:
                return

    async def _mounted(self) -> bool:
        return await self._until(lambda: bool(self._unmounted()), lambda: self._event(*self._unmounted()))

    def _unmounted(self) -> tuple[str, str] | tuple[()]:
        """Reason and message of what cannot be mounted; nothing where all is."""
        faults, store = self._world.faults, self._world.store
        if hits(faults.failed_attach, self.pod):
            return "FailedAttachVolume", (
                'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node '
                "and can't be attached to another"
            )
        if hits(faults.failed_mount, self.pod):
            return "FailedMount", 'MountVolume.SetUp failed for volume "data" : mount failed: exit status 32'
        for volume in self.pod["spec"].get("volumes") or ():
            for source, key, resource in (
                ("secret", "secretName", known.SECRETS),
                ("configMap", "name", known.CONFIG_MAPS),
            ):
                asked = volume.get(source)
                if asked is None or asked.get("optional"):
                    continue
                if store.get(resource, self.namespace, asked[key]) is None:
                    missing = f'{resource.kind.lower()} "{asked[key]}" not found'
                    return (
                        "FailedMount",
                        f'MountVolume.SetUp failed for volume "{volume["name"]}" : {missing}',
                    )
        return ()

    async def _pulled(self) -> bool:
        image = self._container["image"]
        if not _IMAGE.match(image):
            told = (
                f'Failed to apply default image tag "{image}": couldn\'t parse image name: invalid reference'
            )

            def invalid() -> None:
                self._state.waits("InvalidImageName", told)
                self._event("InspectFailed", told)

            return await self._until(lambda: True, invalid)
        if hits(self._world.faults.image_pull, self.pod):
            told = f'Failed to pull image "{image}": failed to resolve reference: {image}: not found'
            self._state.waits("ErrImagePull", told)
            self._event("Pulling", f'Pulling image "{image}"', normal=True)
            self._event("Failed", told)
            self._event("Failed", "Error: ErrImagePull")
            self._publish()
            await self._pause(_FIRST_BACK_OFF)

            def backing_off() -> None:
                self._state.waits("ImagePullBackOff", f'Back-off pulling image "{image}"')
                self._event("BackOff", f'Back-off pulling image "{image}"')
                self._event("Failed", "Error: ImagePullBackOff")

            if not await self._until(lambda: hits(self._world.faults.image_pull, self.pod), backing_off):
                return False
        self._event("Pulled", f'Successfully pulled image "{image}"', normal=True)
        return not deleting(self.pod)

    async def _configured(self) -> bool:
        def tell() -> None:
            self._state.waits("CreateContainerConfigError", self._misconfigured())
            self._event("Failed", f"Error: {self._misconfigured()}")

        return await self._until(lambda: bool(self._misconfigured()), tell)

    def _misconfigured(self) -> str:
        if hits(self._world.faults.config_error, self.pod):
            return 'secret "missing" not found'
        try:
            for container in self.pod["spec"]["containers"]:
                environment(self._world.store, self.pod, container)
        except ConfigError as error:
            return str(error)
        return ""

    async def _once(self) -> None:
        """One run of the containers, until they end or the pod is deleted."""
        uid = self.pod["metadata"]["uid"]
        logs = {one["name"]: self._logs.begin(uid, one["name"]) for one in self.pod["spec"]["containers"]}
        self._state.runs()
        self._event("Started", f"Started container {self._container['name']}", normal=True)
        self._publish()
        self.running = True
        try:
            await self._attend(logs)
        finally:
            self.running = False
            for log in logs.values():
                log.end()
        self._publish()

    async def _attend(self, logs: dict[str, Log]) -> None:
        failed = self._failing(logs)
        if failed:
            return
        started = await self._start(logs)
        ended = asyncio.create_task(started.wait()) if started is not None else None
        getting_ready = asyncio.create_task(self._become_ready(started is None))
        try:
            while not deleting(self.pod) and not self._failing(logs):
                self._nudged.clear()
                nudged = asyncio.create_task(self._nudged.wait())
                await asyncio.wait({nudged, ended} if ended else {nudged}, return_when="FIRST_COMPLETED")
                nudged.cancel()
                if ended is not None and ended.done():
                    code = ended.result()
                    self._state.ended(
                        code if code >= 0 else 128 - code, "Completed" if code == 0 else "Error"
                    )
                    return
                if getting_ready.done() and self._unhealthy() == self._state.ready:
                    getting_ready = asyncio.create_task(self._become_ready(started is None))
            if deleting(self.pod):
                await self._terminate(started)
        finally:
            getting_ready.cancel()
            if started is not None:
                await started.kill()
            if ended is not None:
                ended.cancel()

    def _failing(self, logs: dict[str, Log]) -> bool:
        """Whether a fault ends the containers now."""
        faults = self._world.faults
        if hits(faults.oom_killed, self.pod):
            self._state.ended(137, "OOMKilled")
            return True
        if hits(faults.crash_loop, self.pod):
            for line in faults.crash_lines:
                logs[self._container["name"]].write(line)
            self._state.ended(faults.crash_exit_code, "Error", "\n".join(faults.crash_lines))
            return True
        return False

    async def _start(self, logs: dict[str, Log]) -> Running | None:
        env = environment(self._world.store, self.pod, self._container)
        wanted = Start(self.pod, self._container, env, free_port())
        command = self._command(wanted)
        if command is None:
            self.port = None
            return None
        running = await start(wanted, command, logs[self._container["name"]])
        self._processes = [running]
        self.port = wanted.port
        return running

    def _unhealthy(self) -> bool:
        faults = self._world.faults
        return hits(faults.startup_probe, self.pod) or hits(faults.readiness_probe, self.pod)

    async def _become_ready(self, simulated: bool) -> None:
        """Probes, until the containers are ready; a fault makes them unready again."""
        if simulated:
            await asyncio.sleep(self._ready_seconds)
        for kind in ("startup", "readiness"):
            probe = self._container.get(f"{kind}Probe")
            why = await self._probe(kind, probe, simulated)
            while why:
                self._event("Unhealthy", f"{kind.capitalize()} probe failed: {why}")
                if self._state.ready:
                    self._state.ready = False
                    self._publish()
                if self._unhealthy():
                    return  # the next nudge begins anew
                await asyncio.sleep(PROBE_SECONDS)
                why = await self._probe(kind, probe, simulated)
            self._state.started = True
        self._state.ready = True
        self._publish()

    async def _probe(self, kind: str, probe: Json | None, simulated: bool) -> str:
        patterns = getattr(self._world.faults, f"{kind}_probe")
        if hits(patterns, self.pod):
            return "HTTP probe failed with statuscode: 503"
        if simulated or self.port is None or (kind == "startup" and probe is None):
            return ""
        return await answers(self.port, probe)

    async def _terminate(self, started: Running | None) -> None:
        """preStop, SIGTERM, and SIGKILL once the grace is over (in real seconds: the process is real)."""
        self._event("Killing", f"Stopping container {self._container['name']}", normal=True)
        self._state.ready = False
        self._publish()
        if started is None:
            return
        pause = (self._container.get("lifecycle") or {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        await asyncio.sleep(pause / self._world.speed)
        started.terminate()
        try:
            async with asyncio.timeout(self.pod["metadata"].get("deletionGracePeriodSeconds", 30)):
                await started.wait()
        except TimeoutError:
            await started.kill()
