"""What a user can do with deployments that are there: read, list, follow, delete."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from moorage.credentials import Vault
from moorage.domain.deployment import Deployment, Phase
from moorage.domain.event import Event
from moorage.domain.identity import Permission, Principal
from moorage.domain.notice import NewId, events
from moorage.domain.transition import Fact
from moorage.domain.view import DeploymentView, deployment_view
from moorage.errors import (
    Gone,
    Invalid,
    NotFound,
    ProviderError,
    StaleWrite,
    Unauthorized,
    Unavailable,
)
from moorage.ports.outside import Clock
from moorage.ports.provider import Credentials, LogLine, Logs, Provider
from moorage.ports.store import Append, DeploymentFilter, Page, Store, Update
from moorage.services.authorization import require
from moorage.services.credentials import refusal_of
from moorage.signals import Signals, wait_for

KEEPALIVE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the deployments service needs from outside."""

    store: Store
    providers: Mapping[str, Provider]
    clock: Clock
    new_id: NewId
    signals: Signals
    public_url: str
    on_written: Callable[[str], None]  # a deployment's id: wakes the engine
    vault: Vault
    machine: str | None = None  # this one


class Deployments:
    def __init__(self, surroundings: Surroundings) -> None:
        self._out = surroundings

    # -- asking ------------------------------------------------------------------------------------------

    async def deployment(self, principal: Principal, deployment_id: str) -> Deployment:
        """The row, for surfaces that show it in words of their own."""
        require(principal, Permission.READ)
        return await self._owned(principal, deployment_id)

    @property
    def public_url(self) -> str:
        """Under which this service is reached, without a final slash."""
        return self._out.public_url

    async def get(self, principal: Principal, deployment_id: str) -> DeploymentView:
        require(principal, Permission.READ)
        return self._view(await self._owned(principal, deployment_id))

    async def page(
        self, principal: Principal, where: DeploymentFilter, cursor: str | None, limit: int
    ) -> Page[DeploymentView]:
        page = await self._page(principal, where, cursor, limit)
        return Page(tuple(self._view(d) for d in page.items), page.next_cursor)

    async def page_on_clusters(
        self, principal: Principal, cursor: str | None, limit: int
    ) -> Page[Deployment]:
        """Those that name a cluster, newest first. A page may be shorter than `limit`; only the last has no
        cursor."""
        while True:
            page = await self._page(principal, DeploymentFilter(), cursor, limit)
            found = tuple(d for d in page.items if d.spec.policy.cluster is not None)
            if found or page.next_cursor is None:
                return Page(found, page.next_cursor)
            cursor = page.next_cursor

    async def events(
        self, principal: Principal, deployment_id: str, after: str | None, limit: int
    ) -> Sequence[Event]:
        """Oldest first."""
        require(principal, Permission.READ)
        await self._owned(principal, deployment_id)
        return await self._out.store.events(deployment_id, after, limit)

    async def follow_events(
        self, principal: Principal, deployment_id: str, after: str | None
    ) -> AsyncIterator[Event | None]:
        """All events after `after`, then new ones as they happen, until `deployment.deleted`. None now and
        then, so that a quiet connection can be kept alive."""
        with self._out.signals.listen(deployment_id) as changed:
            while True:
                changed.clear()
                current = await self._out.store.deployment(deployment_id)
                over = current is None or current.status.phase is Phase.DELETED  # seen before the events are
                batch = await self._out.store.events(deployment_id, after, 500)
                for event in batch:
                    yield event
                    after = event.id
                    if event.type == "deployment.deleted":
                        return
                if over and not batch:
                    return  # the reader has had the last event already
                if not batch:
                    await wait_for(changed, KEEPALIVE_SECONDS)
                    if not changed.is_set():
                        yield None

    async def logs(
        self, principal: Principal, deployment_id: str, *, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        """Lines of the replicas; with `follow` it waits for the endpoint, and ends with it."""
        require(principal, Permission.READ)
        deployment = await self._owned(principal, deployment_id)
        if follow:
            deployment = await self._with_endpoint(deployment)
        attempt = deployment.status.attempt
        if attempt is None or attempt.handle is None:
            return _no_lines()
        name, home = attempt.rung.offer.provider, attempt.rung.offer.home
        if home not in (None, self._out.machine):
            raise Unavailable(
                f"The logs are on the machine {home}, and this request came to another one.",
                code="logs_elsewhere",
                advice="Ask the service on that machine.",
            )
        provider = self._out.providers.get(name)
        if not isinstance(provider, Logs):
            raise NotFound(f"Provider {name} keeps no logs that can be read.", code="no_logs")
        try:
            credentials = await self._credentials(deployment)
        except Unauthorized as error:
            raise refusal_of(error) from error
        return _told(provider.logs(attempt.handle, credentials, tail=tail, follow=follow))

    # -- wanting -----------------------------------------------------------------------------------------

    async def delete(self, principal: Principal, deployment_id: str) -> None:
        """Wants it gone. Repeating it does no harm."""
        require(principal, Permission.DEPLOY)
        out = self._out
        while True:
            deployment = await self._owned(principal, deployment_id)
            if deployment.deleted_at is not None:
                return
            now = out.clock.now()
            fact = Fact("deployment.delete_requested", "Its owner wants it gone.")
            asked = replace(deployment, deleted_at=now, due_at=now)
            told = events(deployment, (fact,), principal.id, now, out.new_id)
            try:
                await out.store.commit([Update(asked), *(Append(e) for e in told)])
            except StaleWrite:
                continue  # the engine wrote meanwhile: read again, want again
            out.on_written(deployment_id)
            return

    # -- parts -------------------------------------------------------------------------------------------

    async def _page(
        self, principal: Principal, where: DeploymentFilter, cursor: str | None, limit: int
    ) -> Page[Deployment]:
        require(principal, Permission.READ)
        try:
            return await self._out.store.deployments(principal.organization_id, where, cursor, limit)
        except ValueError as error:
            raise Invalid.at(
                "query.cursor", "cursor", "Use next_cursor of an earlier page as it is."
            ) from error

    def _view(self, deployment: Deployment) -> DeploymentView:
        return deployment_view(deployment, self._out.clock.now(), self._out.public_url)

    async def _owned(self, principal: Principal, deployment_id: str) -> Deployment:
        deployment = await self._out.store.deployment(deployment_id, principal.organization_id)
        if deployment is None:
            raise NotFound(f"There is no deployment {deployment_id!r}.", code="deployment_not_found")
        return deployment

    async def _credentials(self, deployment: Deployment) -> Credentials | None:
        credential_id = deployment.account
        return None if credential_id is None else await self._out.vault.open(credential_id)

    async def _with_endpoint(self, deployment: Deployment) -> Deployment:
        """Waits until there is an endpoint to read logs of, or never will be."""
        with self._out.signals.listen(deployment.id) as changed:
            while True:
                changed.clear()
                attempt = deployment.status.attempt
                over = deployment.phase in (Phase.DELETING, Phase.DELETED, Phase.FAILED)
                if over or (attempt is not None and attempt.handle is not None):
                    return deployment
                await wait_for(changed, KEEPALIVE_SECONDS)
                deployment = await self._out.store.deployment(deployment.id) or deployment


async def _told(lines: AsyncIterator[LogLine]) -> AsyncIterator[LogLine]:
    """What stands in the way at the provider, as an answer to the reader."""
    try:
        async for line in lines:
            yield line
    except Gone:
        raise
    except ProviderError as error:
        raise refusal_of(error) from error


async def _no_lines() -> AsyncIterator[LogLine]:
    return
    yield  # makes this a generator
