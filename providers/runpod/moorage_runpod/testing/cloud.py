"""All that the fake holds, in memory: accounts, endpoints with queues and workers, templates, volumes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from moorage_runpod.testing.accounts import Account
from moorage_runpod.testing.billing import Meter
from moorage_runpod.testing.catalog import Catalog
from moorage_runpod.testing.changes import Changes
from moorage_runpod.testing.endpoint import EndpointSpec, Json, release_diff, request_urls, rfc3339
from moorage_runpod.testing.faults import Faults
from moorage_runpod.testing.jobs import JobQueue
from moorage_runpod.testing.problems import not_found
from moorage_runpod.testing.recorded import Records
from moorage_runpod.testing.rules import Surroundings, check_quota
from moorage_runpod.testing.worker import STATUSES, Worker, new_id

Clock = Callable[[], float]


@dataclass(eq=False, slots=True)
class Endpoint:
    """`waiting` counts a load balancer's requests that have no worker yet."""

    id: str
    account: Account
    spec: EndpointSpec
    created_at: float
    queue: JobQueue
    changes: Changes
    version: int = 1
    releases: list[Json] = field(default_factory=list)
    workers: dict[str, Worker] = field(default_factory=dict)
    waiting: int = 0

    def as_json(self, base: str) -> Json:
        urls = request_urls(self.id, self.spec, base)
        return {
            "id": self.id,
            **self.spec.as_json(),
            "requestUrls": urls,
            "createdAt": rfc3339(self.created_at),
        }

    def summary(self, crash_status: str) -> dict[str, int]:
        """Workers by status, by the API's names: `running`."""
        states = [w.status(crash_status) for w in self.workers.values()]
        return {status.lower(): states.count(status) for status in STATUSES}


class Cloud:
    """`wake` is called after each change that may need workers to come or go."""

    def __init__(self, accounts: Iterable[Account], catalog: Catalog, clock: Clock = time.time) -> None:
        self.accounts = list(accounts)
        self.catalog = catalog
        self.clock = clock
        self.faults = Faults()
        self.records = Records()
        self.meter = Meter()
        self.endpoints: dict[str, Endpoint] = {}
        self.templates: dict[str, tuple[Account, Json]] = {}
        self.volumes: dict[str, tuple[Account, Json]] = {}
        self.creates = 0
        self.made: Counter[str] = Counter()  # endpoints by name
        self.deletes = 0
        self.leaving: set[asyncio.Task[None]] = set()  # workers that are being stopped
        self.base = ""
        self.wake: Callable[[], None] = lambda: None
        self.on_delete: Callable[[Endpoint], None] = lambda endpoint: None
        self.faults.on_change = self.changed

    def changed(self) -> None:
        """To be called after a change that may concern every endpoint."""
        for endpoint in self.endpoints.values():
            endpoint.changes.tell()
        self.wake()

    # -- endpoints ----------------------------------------------------------------------------------

    def create(self, account: Account, spec: EndpointSpec) -> Endpoint:
        """Raises Problem where the quota does not allow it."""
        self._check_quota(account, spec, None)
        changes = Changes()

        def changed() -> None:
            changes.tell()
            self.wake()

        endpoint = Endpoint(
            id=new_id(),
            account=account,
            spec=spec,
            created_at=self.clock(),
            queue=JobQueue(lambda: endpoint.spec.timeout / 1000, changed),
            changes=changes,
        )
        endpoint.releases.append(self._release(1, []))
        self.endpoints[endpoint.id] = endpoint
        self.creates += 1
        self.made[spec.name] += 1
        self.wake()
        return endpoint

    def change(self, endpoint: Endpoint, spec: EndpointSpec) -> None:
        """Raises Problem where the quota does not allow it."""
        if spec.workers_max > endpoint.spec.workers_max:
            self._check_quota(endpoint.account, spec, endpoint)
        diff = release_diff(endpoint.spec, spec)
        endpoint.spec = spec
        if diff:
            endpoint.version += 1
            endpoint.releases.insert(0, self._release(endpoint.version, diff))
        self.wake()

    def delete(self, endpoint: Endpoint) -> None:
        self.endpoints.pop(endpoint.id, None)
        self.deletes += 1
        endpoint.queue.close(self.clock())
        self.on_delete(endpoint)
        endpoint.changes.tell()

    def endpoint(self, account: Account, endpoint_id: str) -> Endpoint:
        """One of the account's. Raises 404."""
        endpoint = self.endpoints.get(endpoint_id)
        if endpoint is None or endpoint.account is not account:
            raise not_found()
        return endpoint

    def listed(self, account: Account) -> list[Endpoint]:
        known_until = self.clock() - self.faults.list_lag_seconds
        return [e for e in self.endpoints.values() if e.account is account and e.created_at <= known_until]

    @property
    def running_workers(self) -> int:
        """Workers with a machine, those that are being stopped among them."""
        placed = sum(w.placement is not None for e in self.endpoints.values() for w in e.workers.values())
        return placed + len(self.leaving)

    def surroundings(self, account: Account) -> Surroundings:
        def own(held: dict[str, tuple[Account, Json]]) -> Callable[[str], Json | None]:
            return lambda name: held[name][1] if name in held and held[name][0] is account else None

        return Surroundings(self.catalog, own(self.templates), own(self.volumes), self.faults.missing_images)

    def volume_centers(self, spec: EndpointSpec) -> frozenset[str]:
        return frozenset(self.volumes[v][1]["dataCenter"] for v in spec.network_volumes if v in self.volumes)

    def _check_quota(self, account: Account, spec: EndpointSpec, but: Endpoint | None) -> None:
        others = sum(
            e.spec.workers_max for e in self.endpoints.values() if e.account is account and e is not but
        )
        quota = account.workers_quota if self.faults.workers_quota is None else self.faults.workers_quota
        check_quota(spec.workers_max, others, quota)

    def _release(self, version: int, diff: list[Json]) -> Json:
        return {
            "id": new_id(),
            "version": version,
            "source": "MANUAL",
            "buildId": None,
            "createdByUserId": None,
            "workerCount": 0,
            "createdAt": rfc3339(self.clock()),
            "diff": diff,
        }
