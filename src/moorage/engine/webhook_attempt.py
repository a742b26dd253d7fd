"""One attempt at one webhook message: sign, send, store what came of it.

What is stored goes in one unit, fenced by the lease the message was claimed under. When a process dies
between sending and storing, another sends again after the lease, under the same message id: at least once,
never lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial

import structlog

from moorage.domain.delivery import (
    Answer,
    Delivery,
    DeliveryState,
    Receiver,
    WebhookSecret,
    after_attempt,
    disable,
    message_headers,
    receiver_id,
    retry_after_seconds,
)
from moorage.domain.event import Event
from moorage.domain.notice import NewId
from moorage.domain.webhook_signature import SECRET_BYTES, new_secret, seal_context, sealed_in_use, sign
from moorage.engine.recording import Recorder
from moorage.engine.store_trouble import StoreTrouble
from moorage.errors import AlreadyExists, OutgoingFailed, OutgoingRefused, StaleWrite
from moorage.ports.outside import Clock, Outgoing, SecretBox
from moorage.ports.store import Append, Insert, Store, Update, Write

log = structlog.get_logger(__name__)

COMMIT_TRIES = 3


class WebhookAttempt:
    """Makes attempts; keeps nothing between them."""

    def __init__(
        self,
        store: Store,
        outgoing: Outgoing,
        box: SecretBox,
        clock: Clock,
        new_id: NewId,
        *,
        timeout: float,
        luck: Callable[[], float] = random.random,
        recorder: Recorder | None = None,
    ) -> None:
        self._store = store
        self._outgoing = outgoing
        self._box = box
        self._clock = clock
        self._new_id = new_id
        self._timeout = timeout
        self._luck = luck
        self._recorder = recorder or Recorder()
        self._trouble = StoreTrouble("outbox.attempts")

    async def make(self, delivery: Delivery, token: str) -> None:
        """One attempt, from the claimed row to the released one. While the store is away what came of it is
        kept, so that a message which arrived is not sent again. Raises StoreError when the store fails
        otherwise."""
        id_ = receiver_id(delivery.organization_id, delivery.url)
        receiver = await self._trouble.insist(lambda: self._store.receiver(id_))
        if receiver is not None and receiver.disabled_at is not None:
            await self._commit(disable(delivery), token)
            return
        record = self._recorder.attempt(delivery)
        answer = await self._send(delivery, record.headers)
        after = after_attempt(delivery, answer, self._clock.now(), self._luck())
        record.over(answer, after)
        await self._commit(after, token)
        log.info(
            "webhook.attempted",
            delivery=delivery.id,
            event_type=delivery.event_type,
            status=answer.status,
            state=after.state,
            failures=after.failures,
        )

    # -- sending ----------------------------------------------------------------------------------------

    async def _send(self, delivery: Delivery, more_headers: Mapping[str, str]) -> Answer:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            at = self._clock.now()
            signatures = await self._trouble.insist(lambda: self._signatures(delivery, at))
            answer = await self._outgoing.post(
                delivery.url,
                {**message_headers(delivery.id, at, signatures), **more_headers},
                delivery.payload.encode(),
                self._timeout,
            )
        except OutgoingRefused as error:
            why = f"refused by the rule {error.rule}: {error.detail}"
            return Answer(None, error=why, seconds=loop.time() - began)
        except (OutgoingFailed, _SecretUnreadable) as error:
            return Answer(None, error=str(error), seconds=loop.time() - began)
        return Answer(
            answer.status,
            retry_after=retry_after_seconds(answer.headers.get("retry-after"), self._clock.now()),
            seconds=loop.time() - began,
        )

    async def _signatures(self, delivery: Delivery, at: datetime) -> tuple[str, ...]:
        secret = await self._secret(delivery.organization_id)
        current, *previous = sealed_in_use(secret, at)
        context = seal_context(delivery.organization_id)
        try:
            keys = [self._box.open(current, context).decode()]
        except ValueError as error:
            raise _SecretUnreadable(
                f"the organization's webhook secret cannot be opened ({error}); rotate it"
            ) from error
        for sealed in previous:
            with contextlib.suppress(ValueError):  # the current one suffices
                keys.append(self._box.open(sealed, context).decode())
        return tuple(sign(key, delivery.id, at, delivery.payload) for key in keys)

    async def _secret(self, organization_id: str) -> WebhookSecret:
        """The organization's secret, made with its first message when nobody asked for one before."""
        found = await self._store.webhook_secret(organization_id)
        if found is not None:
            return found
        text = new_secret(secrets.token_bytes(SECRET_BYTES))
        sealed = self._box.seal(text.encode(), seal_context(organization_id))
        made = WebhookSecret(organization_id, sealed, self._clock.now())
        try:
            await self._store.commit([Insert(made)])
        except AlreadyExists:
            found = await self._store.webhook_secret(organization_id)
            assert found is not None
            return found
        return made

    # -- storing ----------------------------------------------------------------------------------------

    async def _commit(self, after: Delivery, token: str) -> None:
        gone = after.state is DeliveryState.DISABLED and after.attempts and after.attempts[-1].status == 410
        for _ in range(COMMIT_TRIES):
            writes: list[Write] = [Update(after, lease=token, release=True)]
            receiver = await self._receiver_gone(after) if gone else None
            if receiver is not None:
                writes.append(receiver)
            writes.extend(self._told(after))
            try:
                await self._trouble.insist(partial(self._store.commit, writes))
            except AlreadyExists:
                continue  # another message to the same receiver wrote its row first
            except StaleWrite:
                if receiver is None:
                    log.warning("webhook.lease_lost", delivery=after.id)
                    return
                continue
            return
        log.warning("webhook.lease_lost", delivery=after.id)

    async def _receiver_gone(self, delivery: Delivery) -> Write | None:
        """The write that disables the receiver; None when it is disabled already."""
        id_ = receiver_id(delivery.organization_id, delivery.url)
        found = await self._trouble.insist(lambda: self._store.receiver(id_))
        now = self._clock.now()
        if found is None:
            return Insert(Receiver(id_, delivery.organization_id, delivery.url, disabled_at=now))
        return None if found.disabled_at is not None else Update(replace(found, disabled_at=now))

    def _told(self, delivery: Delivery) -> tuple[Write, ...]:
        """An end without delivery is a fact that the subject's events show."""
        if delivery.state is DeliveryState.EXHAUSTED:
            type_, why = "webhook.exhausted", "every attempt of the schedule failed"
        elif delivery.state is DeliveryState.DISABLED:
            type_, why = "webhook.disabled", "the receiver said 410 Gone"
        else:
            return ()
        event = Event(
            self._new_id("evt"),
            delivery.organization_id,
            delivery.subject_id,
            type_,
            self._clock.now(),
            "engine",
            f"{delivery.event_type} was not delivered: {why}. Resend it when the receiver works again.",
            {"delivery_id": delivery.id, "event_type": delivery.event_type},
        )
        return (Append(event),)


class _SecretUnreadable(Exception):
    """The sealed webhook secret does not open."""
