"""RunPod on loopback, in memory: a real server for the tests of what speaks with RunPod.

It exists because no test may spend money, and because a provider is judged by how it fares when RunPod
misbehaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

from aiohttp import web

from moorage_runpod.testing.accounts import EVERYTHING, Account
from moorage_runpod.testing.app import application
from moorage_runpod.testing.balancer import Balancer
from moorage_runpod.testing.catalog import Catalog
from moorage_runpod.testing.cloud import Cloud, Endpoint
from moorage_runpod.testing.faults import Faults
from moorage_runpod.testing.fleet import Fleet
from moorage_runpod.testing.processes import ProcessRunner
from moorage_runpod.testing.recorded import SeenRequest
from moorage_runpod.testing.simulated import SimulatedRunner
from moorage_runpod.testing.worker import Worker

KEY = "rpa_FAKE0000000000000000000000000000000000000001"
T = TypeVar("T")


class FakeRunPod:
    """`async with FakeRunPod() as fake:` serves REST v2 on `fake.api_url`, the job API on `fake.job_url`.

    `images` maps an image to the command that runs its workers as processes; workers of any other image are
    simulated, see `simulated`. Without `accounts` there is one, with the key KEY. `faults` may be set at any
    time. Leaving the context fails where the fake itself broke RunPod's document.
    """

    def __init__(
        self,
        *,
        accounts: Iterable[Account] = (),
        images: Mapping[str, Sequence[str]] | None = None,
        catalog: Catalog | None = None,
        load_seconds: float = 0.02,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.cloud = Cloud(tuple(accounts) or (Account("default", {KEY: EVERYTHING}),), catalog or Catalog())
        self.simulated = SimulatedRunner(self.cloud, load_seconds)
        self.balancer = Balancer(self.cloud)
        self._processes = ProcessRunner(self.cloud, images or {})
        self._images = images or {}
        self._fleet = Fleet(self.cloud, self)
        self._address = (host, port)
        self._runner: web.AppRunner | None = None

    # -- what a test asks ---------------------------------------------------------------------------

    @property
    def faults(self) -> Faults:
        return self.cloud.faults

    @property
    def catalog(self) -> Catalog:
        return self.cloud.catalog

    @property
    def accounts(self) -> list[Account]:
        return self.cloud.accounts

    @property
    def requests(self) -> list[SeenRequest]:
        """All that came in over REST, the job API and load balancers."""
        return self.cloud.records.requests

    @property
    def invalid_requests(self) -> list[SeenRequest]:
        """Those that RunPod's document does not allow."""
        return self.cloud.records.invalid

    @property
    def endpoints(self) -> list[Endpoint]:
        return list(self.cloud.endpoints.values())

    def sent(self, name: str) -> list[SeenRequest]:
        """The requests of one route: `POST /v2/serverless`."""
        return [r for r in self.requests if r.name == name]

    async def came(self, look: Callable[[], T | None], seconds: float = 10.0) -> T:
        """What `look` gives once it is true of the requests; looked at after each. Raises TimeoutError."""
        found = await self.cloud.records.changes.until(lambda: look() or None, seconds)
        if found is None:
            raise TimeoutError("no such request came")
        return found

    # -- running ------------------------------------------------------------------------------------

    @property
    def api_url(self) -> str:
        """Stands for https://api.runpod.io."""
        return self.cloud.base

    @property
    def job_url(self) -> str:
        """Stands for https://api.runpod.ai/v2, as the `runpod` package wants it."""
        return f"{self.cloud.base}/v2"

    async def start(self) -> None:
        self._runner = web.AppRunner(
            application(self.cloud, self.balancer), access_log=None, shutdown_timeout=0.2
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address).start()
        host, port = self._runner.addresses[0][:2]
        self.cloud.base = f"http://{host}:{port}"
        await self.balancer.start()
        self._fleet.start()

    async def stop(self) -> None:
        """Returns when no worker is left."""
        await self._fleet.stop()
        await self._processes.close()
        await self.balancer.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def run(self, worker: Worker, endpoint: Endpoint) -> int:
        """Runs a worker in the way that its image asks for; the fleet calls it."""
        kind = self._processes if worker.spec.image in self._images else self.simulated
        return await kind.run(worker, endpoint)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if kind is None and self.cloud.records.broken_answers:
            raise AssertionError("\n".join(self.cloud.records.broken_answers))
