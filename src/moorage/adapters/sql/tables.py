"""The tables: one for each kind of row, columns only for what is searched, and the whole value in `body`.

Instants are microseconds since 1970 UTC in columns, so that every database compares and sorts them alike.
Ids are compared byte by byte: their order is the order of time.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    true,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

metadata = MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"},
)


class _Key(TypeDecorator[str]):
    """Text that is searched. A PostgreSQL database with a language's collation would sort it otherwise than
    Python does; and it takes no NUL, which a search for what a user typed may hold, so NUL is written
    otherwise there, in a way that keeps the order and can be read back."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        return Text(collation="C" if dialect.name == "postgresql" else None)

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None] | None:
        return _without_nul if dialect.name == "postgresql" else None

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[str | None], str | None] | None:
        return _with_nul if dialect.name == "postgresql" else None


def _without_nul(text: str | None) -> str | None:
    if text is None or ("\0" not in text and "\1" not in text):
        return text
    return text.replace("\1", "\1\3").replace("\0", "\1\2")


def _with_nul(text: str | None) -> str | None:
    if text is None or "\1" not in text:
        return text
    return text.replace("\1\2", "\0").replace("\1\3", "\1")


def _id() -> Column[str]:
    return Column("id", _Key(), nullable=False)


def _key(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, _Key(), nullable=nullable)


def _instant(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _tail() -> tuple[Column[int], Column[str]]:
    """What ends every row that can change. `body` is last: a search passes over a row without reading it."""
    return Column("version", BigInteger, nullable=False), Column("body", Text, nullable=False)


def _lease() -> tuple[Column[int], Column[str], Column[int]]:
    return (
        _instant("due_at", nullable=True),
        _key("lease_token", nullable=True),
        _instant("lease_until", nullable=True),
    )


organizations = Table("organizations", metadata, _id(), *_tail(), PrimaryKeyConstraint("id"))

users = Table("users", metadata, _id(), _key("username"), *_tail(), PrimaryKeyConstraint("id"))
Index("uq_users_username", users.c.username, unique=True)

api_keys = Table(
    "api_keys",
    metadata,
    _id(),
    _key("organization_id"),
    _key("hash"),
    _instant("created_at"),
    *_tail(),
    PrimaryKeyConstraint("id"),
)
Index("uq_api_keys_hash", api_keys.c.hash, unique=True)
Index(None, api_keys.c.organization_id, api_keys.c.created_at, api_keys.c.id)

provider_credentials = Table(
    "provider_credentials",
    metadata,
    _id(),
    _key("organization_id"),
    _key("provider"),
    _instant("created_at"),
    *_tail(),
    PrimaryKeyConstraint("id"),
)
Index(None, provider_credentials.c.organization_id, provider_credentials.c.created_at)
Index(None, provider_credentials.c.provider)

clusters = Table(
    "clusters",
    metadata,
    _id(),
    _key("organization_id"),
    _key("held_name", nullable=True),  # its name, until it is removed
    _instant("created_at"),
    *_tail(),
    PrimaryKeyConstraint("id"),
)
Index("uq_clusters_held_name", clusters.c.organization_id, clusters.c.held_name, unique=True)

node_groups = Table(
    "node_groups",
    metadata,
    _id(),
    _key("organization_id"),
    _key("cluster_id"),
    _instant("created_at"),
    _instant("removed_at", nullable=True),
    *_tail(),
    PrimaryKeyConstraint("id"),
)
Index(None, node_groups.c.organization_id, node_groups.c.cluster_id)

model_versions = Table(
    "model_versions",
    metadata,
    _id(),
    _key("organization_id"),
    _key("held_name", nullable=True),  # its name, until it is removed
    _key("model_version"),
    _instant("created_at"),
    *_tail(),
    PrimaryKeyConstraint("id"),
)
Index(
    "uq_model_versions_held_name",
    model_versions.c.organization_id,
    model_versions.c.held_name,
    model_versions.c.model_version,
    unique=True,
)
Index(None, model_versions.c.organization_id, model_versions.c.created_at, model_versions.c.id)

idempotency_records = Table(
    "idempotency_records", metadata, _id(), _instant("created_at"), *_tail(), PrimaryKeyConstraint("id")
)

receivers = Table("receivers", metadata, _id(), *_tail(), PrimaryKeyConstraint("id"))

webhook_secrets = Table("webhook_secrets", metadata, _id(), *_tail(), PrimaryKeyConstraint("id"))

deployments = Table(
    "deployments",
    metadata,
    _id(),
    _key("organization_id"),
    _key("name"),
    _key("held_name", nullable=True),  # `name` until the deployment is deleted or failed, then never again
    _key("phase"),  # the one that is shown
    _key("provider"),
    _key("model"),
    Column("serving", Boolean, nullable=False),
    _instant("created_at"),
    *_lease(),
    _instant("woken_at", nullable=True),  # a wake that came while somebody held the row
    _key("home", nullable=True),  # the machine whose process alone can look after it
    *_tail(),
    PrimaryKeyConstraint("id"),
)
Index("uq_deployments_held_name", deployments.c.organization_id, deployments.c.held_name, unique=True)
Index(None, deployments.c.organization_id, deployments.c.created_at, deployments.c.id)
# The one form that SQLite recognises in a query as the index's own condition.
SERVING = deployments.c.serving.is_(true())
Index("ix_deployments_serving", deployments.c.id, sqlite_where=SERVING, postgresql_where=SERVING)

deliveries = Table(
    "deliveries",
    metadata,
    _id(),
    _key("organization_id"),
    _key("subject_id"),
    _key("state"),
    _instant("created_at"),
    *_lease(),
    *_tail(),
    PrimaryKeyConstraint("id"),
)
Index(None, deliveries.c.organization_id, deliveries.c.created_at, deliveries.c.id)
Index(None, deliveries.c.subject_id, deliveries.c.created_at, deliveries.c.id)

jobs = Table(
    "jobs",
    metadata,
    _id(),
    _key("organization_id"),
    _key("deployment_id"),
    _key("state"),
    _instant("created_at"),
    Column("rank", Integer, nullable=False),  # 1 for low priority
    Column("size", BigInteger, nullable=False),
    Column("retries", Integer, nullable=False),
    *_lease(),
    _instant("woken_at", nullable=True),  # as of deployments
    _instant("expires_at", nullable=True),  # until it is over
    _instant("forget_at", nullable=True),  # from then on
    *_tail(),
    PrimaryKeyConstraint("id"),
)
Index(None, jobs.c.deployment_id, jobs.c.state, jobs.c.created_at, jobs.c.size, jobs.c.retries)
for moment in (jobs.c.expires_at, jobs.c.forget_at):
    Index(None, moment, sqlite_where=moment.is_not(None), postgresql_where=moment.is_not(None))
_QUEUED = jobs.c.due_at.is_not(None)
Index(
    "ix_jobs_queue",
    jobs.c.deployment_id,
    jobs.c.rank,
    jobs.c.created_at,
    jobs.c.id,
    sqlite_where=_QUEUED,
    postgresql_where=_QUEUED,
)

job_payloads = Table("job_payloads", metadata, _id(), *_tail(), PrimaryKeyConstraint("id"))

events = Table(
    "events",
    metadata,
    _id(),
    _key("subject_id"),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("subject_id", "id"),
)

duties = Table(
    "duties",
    metadata,
    _key("name"),
    _key("lease_token"),
    _instant("lease_until"),
    PrimaryKeyConstraint("name"),
)


def _index_claims(table: Table) -> None:
    """What is due, soonest first; and the few rows that are held, by their token."""
    due, token = table.c.due_at.is_not(None), table.c.lease_token.is_not(None)
    Index(f"ix_{table.name}_due", table.c.due_at, sqlite_where=due, postgresql_where=due)
    Index(
        f"ix_{table.name}_held",
        table.c.lease_token,
        table.c.lease_until,
        table.c.due_at,
        sqlite_where=token,
        postgresql_where=token,
    )


_index_claims(deployments)
_index_claims(deliveries)
_index_claims(jobs)
