"""Who acts, and what a role may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

IDEMPOTENCY_KEPT = timedelta(hours=24)


class Permission(StrEnum):
    READ = "read"
    INFER = "infer"
    DEPLOY = "deploy"
    MANAGE_WEBHOOKS = "manage_webhooks"
    MANAGE_KEYS = "manage_keys"
    MANAGE_CREDENTIALS = "manage_credentials"


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    DEPLOYER = "deployer"
    VIEWER = "viewer"
    INVOKER = "invoker"


PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.OWNER: frozenset(Permission),
    Role.ADMIN: frozenset(Permission),
    Role.DEPLOYER: frozenset({Permission.READ, Permission.INFER, Permission.DEPLOY}),
    Role.VIEWER: frozenset({Permission.READ}),
    Role.INVOKER: frozenset({Permission.INFER}),
}


def may_grant(granter: Role, granted: Role) -> bool:
    """A role may be given by those who hold at least its permissions; only an owner makes an owner."""
    if granted is Role.OWNER:
        return granter is Role.OWNER
    return PERMISSIONS[granted] <= PERMISSIONS[granter] and Permission.MANAGE_KEYS in PERMISSIONS[granter]


@dataclass(frozen=True, slots=True)
class ProviderAccount:
    """A provider's account, as opened by the values that its owner sent. Never printed, never kept."""

    provider: str
    values: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has proved who they are. `id` is a user's or a key's.

    `account` is set when the bearer token was a provider's own key: then the account is the tenant, and pays.
    It is there for the time of one request.
    """

    id: str
    organization_id: str
    role: Role
    account: ProviderAccount | None = field(default=None, repr=False, compare=False)

    def may(self, permission: Permission) -> bool:
        return permission in PERMISSIONS[self.role]


@dataclass(frozen=True, slots=True)
class Organization:
    id: str
    name: str
    created_at: datetime
    version: int = 0


@dataclass(frozen=True, slots=True)
class User:
    id: str
    organization_id: str
    username: str  # unique, lower case
    password_hash: str = field(repr=False)
    role: Role
    created_at: datetime
    version: int = 0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Only the hash is kept. `hint` is the key's beginning, so that its owner can tell keys apart."""

    id: str
    organization_id: str
    name: str
    role: Role
    hash: str = field(repr=False)  # hex SHA-256 of the whole key, unique
    hint: str
    created_at: datetime
    created_by: str
    revoked_at: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class ProviderCredential:
    """What opens an organization's account at a provider. `sealed` is JSON of the values, empty once the
    credential was removed. `hint` is what its owner may tell it by."""

    id: str
    organization_id: str
    provider: str
    name: str
    sealed: str = field(repr=False)
    hint: str
    created_at: datetime
    created_by: str
    removed_at: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The answer to a POST, kept with what the POST wrote. `sealed` is the response body, sealed."""

    id: str  # f"{organization_id} {key}"
    organization_id: str
    fingerprint: str  # of route and body: the same key with another request is a mistake
    status: int
    sealed: str = field(repr=False)
    created_at: datetime
    version: int = 0


def idempotency_record_id(organization_id: str, key: str) -> str:
    return f"{organization_id} {key}"


def idempotency_expired(record: IdempotencyRecord, now: datetime) -> bool:
    """An expired record no longer answers, and may be replaced."""
    return now - record.created_at >= IDEMPOTENCY_KEPT
