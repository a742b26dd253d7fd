"""Facts turned into what is stored of them: an event each, and a webhook message for those that are notified.

Services and the engine both write these in the same unit of work as the change they tell of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime

from moorage.domain.delivery import Delivery
from moorage.domain.deployment import Deployment
from moorage.domain.event import NOTIFIED, Event
from moorage.domain.transition import Fact
from moorage.domain.view import deployment_view, instant

NewId = Callable[[str], str]  # prefix → a new id; ids of one caller are in order


def events(
    deployment: Deployment, facts: Sequence[Fact], actor: str, now: datetime, new_id: NewId
) -> tuple[Event, ...]:
    return tuple(
        Event(
            new_id("evt"),
            deployment.organization_id,
            deployment.id,
            fact.type,
            now,
            actor,
            fact.message,
            fact.data,
        )
        for fact in facts
    )


def deliveries(
    deployment: Deployment, facts: Sequence[Fact], now: datetime, new_id: NewId, public_url: str
) -> tuple[Delivery, ...]:
    """Messages to the deployment's own webhook, due at once. The body is signed as it stands."""
    url = deployment.spec.webhook_url
    told = [fact for fact in facts if fact.type in NOTIFIED]
    if url is None or not told:
        return ()
    data = deployment_view(deployment, now, public_url)
    return tuple(
        Delivery(
            id=new_id("msg"),
            organization_id=deployment.organization_id,
            subject_id=deployment.id,
            event_type=fact.type,
            url=url,
            payload=json.dumps(
                {"type": fact.type, "timestamp": instant(now), "data": data},
                separators=(",", ":"),
                ensure_ascii=False,
            ),
            created_at=now,
            due_at=now,
        )
        for fact in told
    )
