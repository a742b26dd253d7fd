"""How each kind of row lies in its table: the one place to extend when the domain gets a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

from sqlalchemy import ColumnElement, Table

from moorage.adapters.row_codec import Codec, maybe_micros, to_micros
from moorage.adapters.sql import tables
from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.delivery import Delivery, Receiver, WebhookSecret
from moorage.domain.deployment import Deployment
from moorage.domain.event import Event
from moorage.domain.identity import ApiKey, IdempotencyRecord, Organization, ProviderCredential, User
from moorage.domain.job import Job, JobPayload
from moorage.domain.model_version import ModelVersion
from moorage.ports.store import Collection, Row, holds_name, home_of, is_routed, model_of, provider_of

Value: TypeAlias = str | int | bool | None
R = TypeVar("R", bound=Row)


@dataclass(frozen=True, slots=True)
class Unique:
    """A key beside the id. `told` is what AlreadyExists may say of it: a key's hash is nobody's business, and
    then it is the id."""

    columns: tuple[str, ...]
    told: tuple[str, ...]


@dataclass(frozen=True)
class Kind(Generic[R]):
    """`columns` gives what is searched; `id`, `version` and `body` are added here."""

    name: str  # as AlreadyExists tells it
    table: Table
    codec: Codec[R]
    columns: Callable[[R], dict[str, Value]]
    unique: Unique | None = None
    leased: bool = False

    def values(self, row: R, version: int) -> dict[str, Value]:
        """The table row for `row` as it is once stored under `version`."""
        stored = replace(row, version=version)
        return {
            "id": row.id,
            **self.columns(stored),
            "version": version,
            "body": self.codec.dump(stored),
        }

    def unique_key(self, values: Mapping[str, Value]) -> list[ColumnElement[bool]]:
        """Finds the row that has the same unique key, if there is such a key."""
        if self.unique is None:
            return []
        return [self.table.c[name] == values[name] for name in self.unique.columns]


def _of_deployment(row: Deployment) -> dict[str, Value]:
    return {
        "organization_id": row.organization_id,
        "name": row.name,
        "held_name": row.name if holds_name(row) else None,
        "phase": row.phase.value,
        "provider": provider_of(row),
        "model": model_of(row),
        "serving": is_routed(row),
        "home": home_of(row),
        "created_at": to_micros(row.created_at),
        "due_at": maybe_micros(row.due_at),
    }


def _of_delivery(row: Delivery) -> dict[str, Value]:
    return {
        "organization_id": row.organization_id,
        "subject_id": row.subject_id,
        "state": row.state.value,
        "created_at": to_micros(row.created_at),
        "due_at": maybe_micros(row.due_at),
    }


def _of_user(row: User) -> dict[str, Value]:
    return {"username": row.username}


def _of_api_key(row: ApiKey) -> dict[str, Value]:
    return {
        "organization_id": row.organization_id,
        "hash": row.hash,
        "created_at": to_micros(row.created_at),
    }


def _of_credential(row: ProviderCredential) -> dict[str, Value]:
    return {
        "organization_id": row.organization_id,
        "provider": row.provider,
        "created_at": to_micros(row.created_at),
    }


def _of_cluster(row: Cluster) -> dict[str, Value]:
    return {
        "organization_id": row.organization_id,
        "held_name": row.name if row.removed_at is None else None,
        "created_at": to_micros(row.created_at),
    }


def _of_node_group(row: NodeGroup) -> dict[str, Value]:
    return {
        "organization_id": row.organization_id,
        "cluster_id": row.cluster_id,
        "created_at": to_micros(row.created_at),
        "removed_at": maybe_micros(row.removed_at),
    }


def _of_model_version(row: ModelVersion) -> dict[str, Value]:
    return {
        "organization_id": row.organization_id,
        "held_name": row.name if row.removed_at is None else None,
        "model_version": row.model_version,
        "created_at": to_micros(row.created_at),
    }


def _of_record(row: IdempotencyRecord) -> dict[str, Value]:
    return {"created_at": to_micros(row.created_at)}


def _of_job(row: Job) -> dict[str, Value]:
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


def _nothing(row: Row) -> dict[str, Value]:
    return {}


ORGANIZATION = Kind("organization", tables.organizations, Codec(Organization), _nothing)
USER = Kind("user", tables.users, Codec(User), _of_user, Unique(("username",), ("username",)))
API_KEY = Kind("api_key", tables.api_keys, Codec(ApiKey), _of_api_key, Unique(("hash",), ()))
PROVIDER_CREDENTIAL = Kind(
    "provider_credential", tables.provider_credentials, Codec(ProviderCredential), _of_credential
)
CLUSTER = Kind(
    "cluster",
    tables.clusters,
    Codec(Cluster),
    _of_cluster,
    Unique(("organization_id", "held_name"), ("held_name",)),
)
NODE_GROUP = Kind("node_group", tables.node_groups, Codec(NodeGroup), _of_node_group)
MODEL_VERSION = Kind(
    "model_version",
    tables.model_versions,
    Codec(ModelVersion),
    _of_model_version,
    Unique(("organization_id", "held_name", "model_version"), ("held_name", "model_version")),
)
IDEMPOTENCY_RECORD = Kind(
    "idempotency_record", tables.idempotency_records, Codec(IdempotencyRecord), _of_record
)
RECEIVER = Kind("receiver", tables.receivers, Codec(Receiver), _nothing)
WEBHOOK_SECRET = Kind("webhook_secret", tables.webhook_secrets, Codec(WebhookSecret), _nothing)
DEPLOYMENT = Kind(
    "deployment",
    tables.deployments,
    Codec(Deployment),
    _of_deployment,
    Unique(("organization_id", "held_name"), ("held_name",)),
    leased=True,
)
DELIVERY = Kind("delivery", tables.deliveries, Codec(Delivery), _of_delivery, leased=True)
JOB = Kind("job", tables.jobs, Codec(Job), _of_job, leased=True)
JOB_PAYLOAD = Kind("job_payload", tables.job_payloads, Codec(JobPayload), _nothing)

EVENT_CODEC = Codec(Event)

# Any: the map pairs each type with its own kind, which a Mapping's type cannot say; `kind_of` does.
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


_BY_NAME = {kind.name: kind for kind in _BY_TYPE.values()}


def kind_of(row: R) -> Kind[R]:
    return _BY_TYPE[type(row)]


def kind_named(name: Collection) -> Kind[Any]:  # Any: of whichever type has the name
    """Raises KeyError for events, which are not of a kind."""
    return _BY_NAME[name]


def event_values(event: Event) -> dict[str, Value]:
    return {"id": event.id, "subject_id": event.subject_id, "body": EVENT_CODEC.dump(event)}
