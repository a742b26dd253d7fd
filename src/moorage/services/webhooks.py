"""What an owner does with webhooks: see and rotate the signing secret, see deliveries, send one again."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from moorage.domain.delivery import Delivery, DeliveryState, WebhookSecret, receiver_id, resend
from moorage.domain.event import Event
from moorage.domain.identity import Permission, Principal
from moorage.domain.notice import NewId
from moorage.domain.webhook_signature import (
    SECRET_BYTES,
    new_secret,
    previous_valid,
    rotated,
    seal_context,
)
from moorage.errors import AlreadyExists, Clash, Invalid, NotFound, StaleWrite, Unavailable
from moorage.ports.outside import Clock, SecretBox
from moorage.ports.store import Append, DeliveryFilter, Insert, Page, Store, Update, Write
from moorage.services.authorization import require

LARGEST_PAGE = 100
TRIES = 5  # when others write the same row; more is a storm


@dataclass(frozen=True, slots=True)
class ShownSecret:
    """`whsec_…` in clear, for its owner's eyes. `previous` is set while it still signs."""

    current: str = field(repr=False)
    created_at: datetime
    previous: str | None = field(default=None, repr=False)
    previous_expires_at: datetime | None = None


class Webhooks:
    """`on_due` is called after a commit that made a delivery due: it wakes the outbox."""

    def __init__(
        self, store: Store, box: SecretBox, clock: Clock, new_id: NewId, on_due: Callable[[], None]
    ) -> None:
        self._store = store
        self._box = box
        self._clock = clock
        self._new_id = new_id
        self.on_due = on_due

    # -- secret -----------------------------------------------------------------------------------------

    async def secret(self, principal: Principal) -> ShownSecret:
        """The organization's secret, made when there is none yet."""
        require(principal, Permission.MANAGE_WEBHOOKS)
        return self._shown(await self._ensured(principal.organization_id))

    async def draft_rotation(self, principal: Principal) -> tuple[ShownSecret, Sequence[Write]]:
        """A new secret and the unit that puts it in place, for `once`; the old one signs for a day more."""
        require(principal, Permission.MANAGE_WEBHOOKS)
        stored = await self._ensured(principal.organization_id)
        now = self._clock.now()
        after = rotated(stored, self._sealed_new(stored.id), now)
        if self._opened(stored.id, stored.sealed) is None:  # its key is gone: it cannot sign any more
            after = replace(after, previous_sealed=None, previous_expires_at=None)
        event = Event(
            self._new_id("evt"),
            principal.organization_id,
            principal.organization_id,
            "webhook_secret.rotated",
            now,
            principal.id,
            "The webhook secret was rotated; the old one signs for a day more.",
        )
        return self._shown(after), [Update(after), Append(event)]

    async def rotate(self, principal: Principal) -> ShownSecret:
        for _ in range(TRIES):
            shown, writes = await self.draft_rotation(principal)
            try:
                await self._store.commit(writes)
            except StaleWrite:
                continue
            return shown
        raise _busy()

    async def _ensured(self, organization_id: str) -> WebhookSecret:
        found = await self._store.webhook_secret(organization_id)
        if found is not None:
            return found
        made = WebhookSecret(organization_id, self._sealed_new(organization_id), self._clock.now())
        with contextlib.suppress(AlreadyExists):  # the outbox or another request was first
            await self._store.commit([Insert(made)])
        found = await self._store.webhook_secret(organization_id)
        assert found is not None
        return found

    def _sealed_new(self, organization_id: str) -> str:
        text = new_secret(secrets.token_bytes(SECRET_BYTES))
        return self._box.seal(text.encode(), seal_context(organization_id))

    def _shown(self, stored: WebhookSecret) -> ShownSecret:
        current = self._opened(stored.id, stored.sealed)
        if current is None:
            raise Unavailable(
                "The webhook secret was sealed under a key that this service no longer has.",
                code="webhook_secret_unreadable",
                advice="Rotate it with POST /v1/webhook-secret/rotate, or put the old key back in the ring.",
            )
        if stored.previous_sealed is None or not previous_valid(stored, self._clock.now()):
            return ShownSecret(current, stored.created_at)
        previous = self._opened(stored.id, stored.previous_sealed)
        return ShownSecret(current, stored.created_at, previous, stored.previous_expires_at)

    def _opened(self, organization_id: str, sealed: str) -> str | None:
        try:
            return self._box.open(sealed, seal_context(organization_id)).decode()
        except ValueError:
            return None

    # -- deliveries -------------------------------------------------------------------------------------

    async def deliveries(
        self, principal: Principal, where: DeliveryFilter, cursor: str | None, limit: int
    ) -> Page[Delivery]:
        """Newest first."""
        require(principal, Permission.READ)
        if where.state is not None and where.state not in {state.value for state in DeliveryState}:
            states = ", ".join(state.value for state in DeliveryState)
            raise Invalid.at("query.state", "enum", f"The state must be one of {states}.")
        if not 1 <= limit <= LARGEST_PAGE:
            raise Invalid.at("query.limit", "range", f"The limit must be 1 to {LARGEST_PAGE}.")
        try:
            return await self._store.deliveries(principal.organization_id, where, cursor, limit)
        except ValueError as error:
            raise Invalid.at(
                "query.cursor", "cursor", "Use next_cursor of an earlier page as it is."
            ) from error

    async def delivery(self, principal: Principal, delivery_id: str) -> Delivery:
        require(principal, Permission.READ)
        return await self._owned(principal, delivery_id)

    async def draft_resend(self, principal: Principal, delivery_id: str) -> tuple[Delivery, Sequence[Write]]:
        """The delivery made due again, and the unit that does it, for `once`; call `on_due` after the commit.
        A receiver that was disabled is enabled by the same unit. Raises NotFound or Clash."""
        require(principal, Permission.MANAGE_WEBHOOKS)
        found = await self._owned(principal, delivery_id)
        if found.state is DeliveryState.PENDING:
            raise Clash(
                f"The delivery {delivery_id} is on its way.",
                code="delivery_pending",
                advice="It is tried again by itself; resend it when it is delivered, exhausted or disabled.",
            )
        now = self._clock.now()
        after = resend(found, now)
        event = Event(
            self._new_id("evt"),
            found.organization_id,
            found.subject_id,
            "webhook.resent",
            now,
            principal.id,
            f"{found.event_type} is sent again.",
            {"delivery_id": found.id, "event_type": found.event_type},
        )
        writes: list[Write] = [Update(after), Append(event)]
        receiver = await self._store.receiver(receiver_id(found.organization_id, found.url))
        if receiver is not None and receiver.disabled_at is not None:
            writes.append(Update(replace(receiver, disabled_at=None)))
        return after, writes

    async def resend(self, principal: Principal, delivery_id: str) -> Delivery:
        for _ in range(TRIES):
            after, writes = await self.draft_resend(principal, delivery_id)
            try:
                await self._store.commit(writes)
            except StaleWrite:
                continue
            self.on_due()
            return after
        raise _busy()

    async def _owned(self, principal: Principal, delivery_id: str) -> Delivery:
        found = await self._store.delivery(delivery_id, principal.organization_id)
        if found is None:
            raise NotFound(f"There is no delivery {delivery_id!r}.", code="delivery_not_found")
        return found


def _busy() -> Clash:
    return Clash("Others are changing the same thing.", advice="Try again.", retry_after=1.0)
