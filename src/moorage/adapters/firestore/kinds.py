"""How each kind of row lies in its collection: the one place to extend when the domain gets a new one.

A document has the whole value as JSON text in `body`, and fields beside it for what is searched. Instants are
microseconds since 1970 UTC. A field without a value is left out, which keeps the document out of its indexes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from moorage.adapters.row_codec import Codec, maybe_micros, to_micros
from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.delivery import Delivery, Receiver, WebhookSecret
from moorage.domain.deployment import Deployment
from moorage.domain.event import Event
from moorage.domain.identity import ApiKey, IdempotencyRecord, Organization, ProviderCredential, User
from moorage.domain.job import Job, JobPayload
from moorage.domain.model_version import ModelVersion
from moorage.ports.store import Collection, Row, holds_name, home_of, is_routed, model_of, provider_of

Value: TypeAlias = str | int | bool | bytes | None
Fields: TypeAlias = Mapping[str, Value]
R = TypeVar("R", bound=Row)

PREFIX = "moorage_"  # a database may have other users
ROW = frozenset({"id", "version", "body", "parts", "body_key", "unit"})
LEASED = frozenset({"due_at", "claim_at", "lease_token", "lease_until", "woken_at"})


@dataclass(frozen=True, slots=True)
class Unique:
    """A key beside the id. `told` is what AlreadyExists may say of it: a key's hash is nobody's business."""

    parts: tuple[str, ...]
    told: str


@dataclass(frozen=True)
class Kind(Generic[R]):
    """`fields` gives what is searched. `once`: a unique key that was given up is not taken again."""

    name: Collection
    collection: str
    codec: Codec[R]
    fields: Callable[[R], Fields]
    names: frozenset[str]  # of all fields that a document can have
    unique: Callable[[R], Unique | None] | None = None
    once: bool = False
    leased: bool = False


def _of_deployment(row: Deployment) -> Fields:
    return {
        "organization_id": row.organization_id,
        "name": row.name,
        "phase": row.phase.value,
        "provider": provider_of(row),
        "model": model_of(row),
        "home": home_of(row) or "",
        "serving": is_routed(row),
        "created_at": to_micros(row.created_at),
        "due_at": maybe_micros(row.due_at),
    }


def _of_delivery(row: Delivery) -> Fields:
    return {
        "organization_id": row.organization_id,
        "subject_id": row.subject_id,
        "state": row.state.value,
        "created_at": to_micros(row.created_at),
        "due_at": maybe_micros(row.due_at),
    }


def _of_user(row: User) -> Fields:
    return {"username": row.username}


def _of_api_key(row: ApiKey) -> Fields:
    return {"organization_id": row.organization_id, "hash": row.hash}


def _of_credential(row: ProviderCredential) -> Fields:
    return {"organization_id": row.organization_id, "provider": row.provider}


def _of_cluster(row: Cluster) -> Fields:
    return {"organization_id": row.organization_id, "there": row.removed_at is None}


def _of_node_group(row: NodeGroup) -> Fields:
    return {
        "organization_id": row.organization_id,
        "cluster_id": row.cluster_id,
        "there": row.removed_at is None,
    }


def _of_model_version(row: ModelVersion) -> Fields:
    return {
        "organization_id": row.organization_id,
        "there": row.removed_at is None,
        "created_at": to_micros(row.created_at),
    }


def _of_job(row: Job) -> Fields:
    return {
        "organization_id": row.organization_id,
        "deployment_id": row.deployment_id,
        "state": row.state.value,
        "created_at": to_micros(row.created_at),
        "rank": int(row.policy.low_priority),
        "size": row.size,
        "retries": row.retries,
        "due_at": maybe_micros(row.due_at),
        "expires_at": maybe_micros(row.expires_at),
        "forget_at": maybe_micros(row.forget_at),
    }


def _nothing(row: Row) -> Fields:
    return {}


def _deployment_name(row: Deployment) -> Unique | None:
    return deployment_name(row.organization_id, row.name) if holds_name(row) else None


def deployment_name(organization_id: str, name: str) -> Unique:
    return Unique(("deployment", organization_id, name), name)


def _username(row: User) -> Unique:
    return Unique(("user", row.username), row.username)


def _hash(row: ApiKey) -> Unique:
    return Unique(("api_key", row.hash), row.id)


def _cluster_name(row: Cluster) -> Unique | None:
    return Unique(("cluster", row.organization_id, row.name), row.name) if row.removed_at is None else None


def _model_name(row: ModelVersion) -> Unique | None:
    if row.removed_at is not None:
        return None
    names = (row.name, row.model_version)
    return Unique(("model_version", row.organization_id, *names), " ".join(names))


def _kind(
    name: Collection,
    plural: str,
    type_: type[R],
    fields: Callable[[R], Fields] = _nothing,
    names: str = "",
    *,
    unique: Callable[[R], Unique | None] | None = None,
    once: bool = False,
    leased: bool = False,
) -> Kind[R]:
    all_names = ROW | frozenset(names.split()) | (LEASED if leased else frozenset())
    if unique is not None:
        all_names |= {"unique"}
    return Kind(name, PREFIX + plural, Codec(type_), fields, all_names, unique, once, leased)


ORGANIZATION = _kind("organization", "organizations", Organization)
USER = _kind("user", "users", User, _of_user, "username", unique=_username)
API_KEY = _kind("api_key", "api_keys", ApiKey, _of_api_key, "organization_id hash", unique=_hash)
PROVIDER_CREDENTIAL = _kind(
    "provider_credential",
    "provider_credentials",
    ProviderCredential,
    _of_credential,
    "organization_id provider",
)
CLUSTER = _kind("cluster", "clusters", Cluster, _of_cluster, "organization_id there", unique=_cluster_name)
NODE_GROUP = _kind("node_group", "node_groups", NodeGroup, _of_node_group, "organization_id cluster_id there")
MODEL_VERSION = _kind(
    "model_version",
    "model_versions",
    ModelVersion,
    _of_model_version,
    "organization_id there created_at",
    unique=_model_name,
)
IDEMPOTENCY_RECORD = _kind("idempotency_record", "idempotency_records", IdempotencyRecord)
RECEIVER = _kind("receiver", "receivers", Receiver)
WEBHOOK_SECRET = _kind("webhook_secret", "webhook_secrets", WebhookSecret)
DEPLOYMENT = _kind(
    "deployment",
    "deployments",
    Deployment,
    _of_deployment,
    "organization_id name phase provider model home serving created_at away_at",
    unique=_deployment_name,
    once=True,
    leased=True,
)
DELIVERY = _kind(
    "delivery",
    "deliveries",
    Delivery,
    _of_delivery,
    "organization_id subject_id state created_at",
    leased=True,
)
JOB = _kind(
    "job",
    "jobs",
    Job,
    _of_job,
    "organization_id deployment_id state created_at rank size retries expires_at forget_at",
    leased=True,
)
JOB_PAYLOAD = _kind("job_payload", "job_payloads", JobPayload)

EVENTS = PREFIX + "events"
EVENT_NAMES = frozenset({"id", "subject_id", "key", "body", "parts", "body_key", "unit"})
EVENT_CODEC = Codec(Event)

# Any: the maps pair each type, or name, with its own kind, which a Mapping's type cannot say.
_BY_TYPE: Mapping[type, Kind[Any]] = {
    Organization: ORGANIZATION,
    User: USER,
    ApiKey: API_KEY,
    ProviderCredential: PROVIDER_CREDENTIAL,
    Cluster: CLUSTER,
    NodeGroup: NODE_GROUP,
    ModelVersion: MODEL_VERSION,
    IdempotencyRecord: IDEMPOTENCY_RECORD,
    Receiver: RECEIVER,
    WebhookSecret: WEBHOOK_SECRET,
    Deployment: DEPLOYMENT,
    Delivery: DELIVERY,
    Job: JOB,
    JobPayload: JOB_PAYLOAD,
}
BY_NAME: Mapping[str, Kind[Any]] = {kind.name: kind for kind in _BY_TYPE.values()}


def kind_of(row: R) -> Kind[R]:
    return _BY_TYPE[type(row)]


def event_fields(event: Event) -> Fields:
    return {
        "id": event.id,
        "subject_id": event.subject_id,
        "key": f"{event.subject_id}/{event.id}",
        "body": EVENT_CODEC.dump(event),
    }
