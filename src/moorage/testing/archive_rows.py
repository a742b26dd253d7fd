"""Rows of every collection, as they may lie in a store: old and new, over and under way, in any alphabet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

from moorage.domain.compute import Estimate, Offer, Rung
from moorage.domain.delivery import (
    Delivery,
    DeliveryAttempt,
    DeliveryState,
    Receiver,
    WebhookSecret,
    receiver_id,
)
from moorage.domain.deployment import Attempt, Deployment, Failure, Handle, Meter, Phase
from moorage.domain.event import Event
from moorage.domain.identity import ApiKey, IdempotencyRecord, Organization, User, idempotency_record_id
from moorage.domain.job import Job, JobPayload, JobState, input_id, output_id
from moorage.domain.model_version import ModelVersion
from moorage.ports.store import Collection, Row, Stored, holds_name
from moorage.testing.store_rows import (
    NOW,
    after,
    api_key,
    cluster,
    credential,
    delivery,
    deployment,
    event,
    in_phase,
    job,
    model_version,
    node_group,
    user,
)

COLLECTIONS: tuple[Collection, ...] = get_args(Collection)
WORDS = 'Grüße, мир, 世界, 🛥️, \u0000\u2028"\\ and the end'


def stored(row: Row | Event) -> Stored:
    """As a store keeps a row that was written the ordinary way."""
    return Stored(row, holds_name=isinstance(row, Deployment) and holds_name(row))


def renamed_away() -> Deployment:
    """It failed, which gave its name away for good, and is being deleted now."""
    row = replace(deployment(12), name="given-away", deleted_at=after(40), version=9)
    return in_phase(row, Phase.DELETING)


def deployments() -> tuple[Deployment, ...]:
    """One for each way of having a name; `once-more` is held by the last of three that had it."""
    offer = Offer(
        "o", "managed", None, 0, 1, 1, 0.1, "book", "2026-01-01", ref={"b": "2", "a": "1"}, home="m1"
    )
    handle = Handle("managed", "mrg-x", {"supervisor": "1", "port": "2"})
    attempt = Attempt(1, Rung(offer, "onnx", Estimate(1, 1.0, ())), "mrg-x", NOW, handle)
    placed = deployment(1)
    status = replace(
        placed.status, attempt=attempt, meter=Meter(0.1 + 0.2, 1e-9, NOW), phase_seconds={"validating": 2.0}
    )
    failed = in_phase(replace(deployment(4), name="once-more", due_at=None), Phase.FAILED)
    failure = Failure("no_capacity", WORDS, "Wait.")
    return (
        replace(placed, status=status, version=41),
        replace(deployment(2, "org_b"), name="name-1", version=1),
        replace(in_phase(deployment(3), Phase.DELETED), name="once-more", due_at=None, version=7),
        replace(failed, status=replace(failed.status, failure=failure), version=8),
        replace(deployment(13, phase=Phase.HIBERNATED), name="once-more", wake_at=NOW, version=2),
        replace(deployment(14), due_at=None, deleted_at=after(14), version=3),
    )


def users() -> tuple[User, ...]:
    return (
        replace(user(1), version=1),
        replace(user(2, "grüße"), version=2),
        replace(user(3, "bo"), version=1),
    )


def api_keys() -> tuple[ApiKey, ...]:
    revoked = replace(api_key(2), revoked_at=after(9), version=2)
    return (replace(api_key(1), version=1), revoked, replace(api_key(3, "org_b"), version=1, name=WORDS))


def deliveries() -> tuple[Delivery, ...]:
    tries = (DeliveryAttempt(after(3), 500, None, 0.25), DeliveryAttempt(after(4), None, WORDS, 1.0))
    over = replace(
        delivery(2), state=DeliveryState.DELIVERED, due_at=None, attempts=tries, failures=2, version=3
    )
    other = replace(delivery(3, "org_b", "dep_0002"), payload='{"text":"🛥️"}', version=1)
    return (replace(delivery(1), version=1), over, other)


def jobs() -> tuple[Job, ...]:
    over = replace(job(3), state=JobState.COMPLETED, ended_at=after(9), due_at=None, version=4)
    low = replace(job(4, "dep_0002", "org_b", low_priority=True), version=1)
    return (replace(job(1), version=1), replace(job(2), webhook="https://a.example/é", version=1), over, low)


def job_payloads() -> tuple[JobPayload, ...]:
    taken, given = input_id("job-0003"), output_id("job-0003")
    return tuple(JobPayload(id_, f'{{"text":"{id_} ё"}}', 1) for id_ in (taken, given, input_id("job-0001")))


def model_versions() -> tuple[ModelVersion, ...]:
    """Two versions of one name, the one of them registered again after it had been removed."""
    removed = replace(model_version(2), name="name-1", model_version="2.0", removed_at=after(5), version=2)
    again = replace(model_version(3), name="name-1", model_version="2.0", version=1)
    return (replace(model_version(1), version=1), removed, again)


def events() -> tuple[Event, ...]:
    """Of several subjects, whose ids tell their order apart from that of the events."""
    data: dict[str, str | int | float | bool | None] = {
        "z": 1,
        "a": 1.0,
        "yes": True,
        "none": None,
        "text": WORDS,
        "one": "1",
    }
    told = replace(event(3), message=WORDS, data=data)
    return (event(9), told, event(1), event(2, "key_1"), event(1, "dep_0010"), event(5, "DEP_0001"))


def idempotency_records() -> tuple[IdempotencyRecord, ...]:
    """Their ids hold what a user chose: any printable character may be in them, and decide their order."""
    keys = ("b", "B", "a/b", "a%2Fb", "a b", "_", "__x__", ".", "~", "a" * 200)
    return tuple(
        IdempotencyRecord(idempotency_record_id("org_a", key), "org_a", "f" * 64, 201, "sealed", after(n), 1)
        for n, key in enumerate(keys)
    )


def everything() -> Mapping[Collection, tuple[Stored, ...]]:
    """At least three rows of each, in no order. Nothing in it contradicts the rest."""
    rows: dict[Collection, tuple[Row | Event, ...]] = {
        "organization": tuple(Organization(f"org_{x}", f"{x} {WORDS}", NOW, 1) for x in "bca"),
        "user": users(),
        "api_key": api_keys(),
        "provider_credential": (
            replace(credential(1), version=1),
            replace(credential(2, provider="kubernetes"), version=1),
            replace(credential(3, "org_b"), sealed="", removed_at=after(9), version=2),
        ),
        "cluster": (
            replace(cluster(1), name="once-more", removed_at=after(2), version=5),
            replace(cluster(2), name="once-more", version=1),
            replace(cluster(3, "org_b"), name="once-more", version=1),
        ),
        "node_group": (
            replace(node_group(1), version=1),
            replace(node_group(2), selector={"z": "1", "a": "é"}, removed_at=after(3), version=2),
            replace(node_group(3, "org_b", "cls_0003"), price_per_hour=0.1, version=1),
        ),
        "model_version": model_versions(),
        "idempotency_record": idempotency_records(),
        "receiver": tuple(
            Receiver(receiver_id("org_a", url), "org_a", url, None if n else NOW, n + 1)
            for n, url in enumerate(("https://a.example/", "https://b.example/ü", "http://c.example:8080"))
        ),
        "webhook_secret": tuple(
            WebhookSecret(f"org_{x}", "sealed", NOW, "older", after(60), 2) for x in ("b", "a", "c")
        ),
        "deployment": deployments(),
        "delivery": deliveries(),
        "job": jobs(),
        "job_payload": job_payloads(),
        "event": events(),
    }
    kept = {collection: tuple(stored(row) for row in found) for collection, found in rows.items()}
    kept["deployment"] += (Stored(renamed_away(), holds_name=False),)
    return kept
