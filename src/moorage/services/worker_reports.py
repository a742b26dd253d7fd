"""What workers say of themselves: a signed report wakes the engine, and is kept as a worker's last word.

A worker knows sooner than any look at its provider that it is ready, or why it never will be. It proves who
it is with the secret of its endpoint, which nobody else has; it can say nothing about any other endpoint.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from moorage.domain.deployment import Deployment
from moorage.domain.model import CacheScope, HubModel
from moorage.domain.naming import parse_external_name
from moorage.domain.notice import NewId, events
from moorage.domain.observation import WorkerReport, WorkerState
from moorage.domain.transition import Fact
from moorage.domain.webhook_signature import sign
from moorage.domain.worker_callback import PURPOSE, endpoint_secret
from moorage.errors import NotFound, StaleWrite, Unauthenticated, Unavailable
from moorage.ports.outside import CachedFile, Clock, SecretBox, SharedModelCache
from moorage.ports.store import Append, Store, Update

TOLERANCE = timedelta(minutes=5)  # between the worker's clock and ours
LONGEST_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Signed:
    """The three headers of Standard Webhooks."""

    id: str
    timestamp: str
    signature: str


class WorkerReports:
    """`on_written` hears the id of a deployment whose report was stored."""

    def __init__(
        self,
        store: Store,
        box: SecretBox,
        cache: SharedModelCache | None,
        clock: Clock,
        new_id: NewId,
        on_written: Callable[[str], None],
    ) -> None:
        self._store = store
        self._keys = box.derive(PURPOSE)
        self._cache = cache
        self._clock = clock
        self._new_id = new_id
        self._on_written = on_written

    async def take(self, endpoint: str, signed: Signed, body: bytes, said: Mapping[str, object]) -> None:
        """Stores the report `said`, which `body` is the signed text of, if it is about the present attempt.

        Raises Unauthenticated for a wrong signature, NotFound when the endpoint is nobody's any more.
        """
        self._verify(endpoint, signed, body)
        while True:
            deployment = await self._present(endpoint)
            now = self._clock.now()
            report = _report(endpoint, said, now)
            if _older(report, deployment.report):
                return
            facts = _facts(report, deployment.report)
            told = events(deployment, facts, "worker", now, self._new_id)
            changed = replace(deployment, report=report, due_at=now)
            try:
                await self._store.commit([Update(changed), *(Append(event) for event in told)])
            except StaleWrite:
                continue
            await self._store.wake([deployment.id], now)
            self._on_written(deployment.id)
            return

    async def cached_files(self, endpoint: str, signed: Signed) -> Sequence[CachedFile]:
        """The files of the deployment's model in the shared cache, each with a URL that opens it for a while.
        Raises Unauthenticated, or NotFound `not_cached`."""
        self._verify(endpoint, signed, b"")
        deployment = await self._present(endpoint)
        spec, profile = deployment.spec, deployment.status.profile
        wanted = spec.cache.scope is CacheScope.SHARED and isinstance(spec.source, HubModel)
        if self._cache is None or profile is None or not wanted:
            raise NotFound("This deployment uses no shared cache.", code="not_cached")
        try:
            files = await self._cache.manifest(profile.repo_id, profile.revision)
        except OSError as error:
            raise Unavailable("The shared cache does not answer.", retry_after=5.0) from error
        if files is None:
            raise NotFound(f"{profile.repo_id} is not in the shared cache.", code="not_cached")
        return files

    def _verify(self, endpoint: str, signed: Signed, body: bytes) -> None:
        at = _instant(signed.timestamp)
        fresh = at is not None and abs(self._clock.now() - at) <= TOLERANCE
        if at is not None and fresh:
            for key in self._keys:
                right = sign(endpoint_secret(key, endpoint), signed.id, at, body.decode("utf-8", "replace"))
                if any(hmac.compare_digest(right, given) for given in signed.signature.split(" ")):
                    return
        raise Unauthenticated(
            "The report is not signed with this endpoint's secret.",
            code="wrong_signature",
            advice="Check the worker's clock, and MOORAGE_CALLBACK_SECRET in its environment.",
        )

    async def _present(self, endpoint: str) -> Deployment:
        """The deployment whose present attempt the endpoint is."""
        parsed = parse_external_name(endpoint)
        found = None if parsed is None else await self._store.deployment(parsed.deployment_id)
        attempt = None if found is None else found.status.attempt
        if found is None or attempt is None or attempt.name != endpoint or attempt.abandoned:
            raise NotFound(f"{endpoint} serves no deployment any more.", code="endpoint_not_found")
        return found


def _report(endpoint: str, said: Mapping[str, object], now: datetime) -> WorkerReport:
    def text(name: str) -> str | None:
        value = said.get(name)
        return value[:LONGEST_TEXT] if isinstance(value, str) else None

    def number(name: str) -> float | None:
        value = said.get(name)
        return float(value) if isinstance(value, int | float) else None

    from_cache = said.get("from_cache")
    return WorkerReport(
        endpoint,
        text("worker") or "",
        WorkerState(str(said.get("state"))),
        now,
        text("stage"),
        number("percent"),
        number("load_seconds"),
        from_cache if isinstance(from_cache, bool) else None,
        text("cause"),
    )


def _older(new: WorkerReport, old: WorkerReport | None) -> bool:
    """Once a worker of the endpoint was ready, another one that loads is no news of the endpoint."""
    return (
        old is not None
        and old.endpoint == new.endpoint
        and old.state is WorkerState.READY
        and new.state is WorkerState.LOADING
    )


def _facts(new: WorkerReport, old: WorkerReport | None) -> tuple[Fact, ...]:
    """An event for each stage, for being ready and for failing; the per cent in between are none."""
    if old is not None and (old.endpoint, old.worker, old.state, old.stage) == (
        new.endpoint,
        new.worker,
        new.state,
        new.stage,
    ):
        return ()
    match new.state:
        case WorkerState.LOADING:
            what = f"Worker {new.worker}: {new.stage or 'loading'}."
            return (Fact("worker.loading", what, {"stage": new.stage, "percent": new.percent}),)
        case WorkerState.READY:
            seconds = "" if new.load_seconds is None else f" after {new.load_seconds:.1f} s"
            where = " from the cache" if new.from_cache else ""
            data = {"load_seconds": new.load_seconds, "from_cache": new.from_cache}
            return (Fact("worker.ready", f"Worker {new.worker} loaded the model{where}{seconds}.", data),)
        case WorkerState.FAILED:
            cause = new.cause or "it gave no cause"
            return (Fact("worker.failed", f"Worker {new.worker}: {cause}", {"cause": new.cause}),)


def _instant(timestamp: str) -> datetime | None:
    if not timestamp.isdecimal() or len(timestamp) > 12:
        return None
    return datetime.fromtimestamp(int(timestamp), tz=UTC)
