"""Compute that can run deployments, as a protocol with optional ones beside it, and what goes in and out.

A provider is a distribution of its own, and sees the ports, the domain and the errors, nothing else of ours.
`moorage.testing.provider_contract` checks the docstrings from outside.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from moorage.domain.cluster import ClusterReport, NodeGroup
from moorage.domain.compute import Bill, Feature, Offer, Requirements, Serverless
from moorage.domain.deployment import Handle
from moorage.domain.model import (
    CacheScope,
    Source,
)
from moorage.domain.observation import Observation
from moorage.domain.workload import Workload
from moorage.ports.outside import RegistryAccess, Resolve


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens an account at a provider. Never printed."""

    values: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """Who the credentials turned out to be, in the provider's words."""

    id: str
    detail: str = ""


OPERATOR = "operator:"  # begins the ids of accounts that are the operator's own


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """An account, opened: a stored one of an organization, whose `id` is its credential's, or one of the
    operator's. `name` is the cluster's, where it is one, and `node_groups` are those of that cluster."""

    provider: str
    id: str
    credentials: Credentials
    name: str | None = None
    node_groups: tuple[NodeGroup, ...] = ()

    @property
    def of_operator(self) -> bool:
        return self.id.startswith(OPERATOR)


@dataclass(frozen=True, slots=True)
class Callback:
    """Where a worker tells its state, and what it signs with: a secret (`whsec_…`) of its endpoint alone."""

    url: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WorkerCache:
    """Where a worker finds and keeps weights. Private: `url` is the owner's `s3://bucket/prefix`, opened by
    its keys. Shared: `url` is of the list of files that this service signs, and there are no keys."""

    scope: CacheScope
    url: str
    endpoint_url: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RevisionPlan:
    """All that a provider needs to run one revision. `env` and `hub_token` are opened secrets."""

    deployment_id: str
    organization_id: str
    revision: int
    source: Source  # pinned to a commit or digest
    runtime: str
    offer: Offer
    replicas: int
    memory_bytes: int  # of one replica, from the estimate
    task: str | None = None
    context_length: int | None = None
    concurrency: int | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    hub_token: str | None = field(default=None, repr=False)
    serverless: Serverless = Serverless()
    cache: WorkerCache | None = None
    callback: Callback | None = None  # None: this service cannot be reached by a worker
    dtype: str | None = None  # of the weights, where the model's spec knows better than its files
    variant: str | None = None
    max_replicas: int = 1  # up to which an autoscaler may go; `replicas` is the least
    workload: Workload | None = None
    registry: RegistryAccess | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """The provider has confirmed that nothing of that name exists."""


@dataclass(frozen=True, slots=True)
class StillThere:
    """Deletion is under way; ask again after `after` seconds."""

    after: float = 1.0


class Provider(Protocol):
    """Compute that can run deployments.

    Every call may be repeated, and may be made by a process that died since the last one. `create` adopts
    what already exists under the name; it never makes a second. `delete` of what is not there is `Absent`.
    Errors are `ProviderError`s of `moorage.errors`, nothing else.
    """

    name: str
    unsupported: Mapping[Feature, str]
    credential_fields: Mapping[str, str]  # name and meaning of what opens an account; empty: none is needed

    async def check_credentials(self, credentials: Credentials | None) -> Account:
        """Raises Unauthorized when they are refused, PermissionMissing when they open too little."""

    async def offers(self, need: Requirements, credentials: Credentials | None) -> Sequence[Offer]:
        """What is sold now. An offer too small for `need` is listed all the same, so that it can be refused
        with its reason; one whose room is taken has availability NONE."""

    async def find(self, name: str, credentials: Credentials | None) -> Handle | None: ...

    async def create(self, plan: RevisionPlan, name: str, credentials: Credentials | None) -> Handle:
        """Starts what `plan` says under `name`, or adopts it. Raises NoCapacity when there is no room."""

    async def observe(self, handle: Handle, credentials: Credentials | None) -> Observation:
        """Raises Gone when nothing of that name exists."""

    async def apply(self, handle: Handle, plan: RevisionPlan, credentials: Credentials | None) -> Handle:
        """Changes what runs (replicas, env) to what `plan` says."""

    async def delete(self, handle: Handle, credentials: Credentials | None) -> Absent | StillThere: ...

    def owned(self, credentials: Credentials | None) -> AsyncIterator[Handle]:
        """Everything the provider holds under our tag."""

    async def aclose(self) -> None:
        """Lets go of connections and watches. What runs goes on running."""


@dataclass(frozen=True, slots=True)
class LogLine:
    at: datetime
    replica: str
    text: str


@runtime_checkable
class Logs(Protocol):
    """A provider whose replicas' logs can be read."""

    def logs(
        self, handle: Handle, credentials: Credentials | None, *, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        """The last `tail` lines, oldest first, then new ones as they come if `follow`. Raises Gone."""


@runtime_checkable
class BearerKeys(Protocol):
    """A provider whose own account keys are taken as bearer tokens: the account is the tenant, and pays."""

    def credentials_of(self, bearer: str) -> Credentials | None:
        """Of a token that has the form of this provider's keys; None for any other. Asks nobody."""


@runtime_checkable
class OperatorAccounts(Protocol):
    """A provider with accounts of the operator's own, on which all organizations of this service may be
    placed, each apart from the others."""

    def operator_accounts(self) -> Mapping[str, Credentials]:
        """By a name that stays the same over restarts. Asks nobody."""


@runtime_checkable
class Billing(Protocol):
    """A provider that tells what it charged for an endpoint."""

    async def billed(self, handle: Handle, credentials: Credentials | None, since: datetime) -> Bill: ...


@runtime_checkable
class Stop(Protocol):
    """A provider whose endpoints can be without a replica and keep the rest: volumes, addresses, names. One
    that cannot has its endpoint deleted, and made again."""

    async def stop(self, handle: Handle, credentials: Credentials | None) -> Absent | StillThere:
        """`Absent` when no replica is left. `apply` starts it again. Raises Gone."""


@runtime_checkable
class Wake(Protocol):
    """A provider whose endpoints may be let down to no replica by their autoscaler (`Observation.asleep`)."""

    async def wake(self, handle: Handle, credentials: Credentials | None) -> None:
        """Have it start a replica now, whatever the autoscaler thinks, until one is ready. Raises Gone."""


@runtime_checkable
class Clusters(Protocol):
    """A provider whose accounts are clusters that organizations import."""

    def read_access(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """The values of the credential, out of what a user gave: `kubeconfig`, or `server`,
        `certificate_authority` and `token`; and the optional ones. Asks nobody. Raises Rejected, by field."""

    async def check(self, credentials: Credentials) -> ClusterReport:
        """What the cluster has, and what we may do there. One that cannot be read has a `problem`."""


@runtime_checkable
class MachineLocal(Protocol):
    """A provider of compute that only processes on one machine can see."""

    def home(self) -> str | None:
        """`Offer.home` of all its offers."""


@runtime_checkable
class Watch(Protocol):
    """A provider that tells when something changed, so that nobody has to poll it. It is watched once for
    each account, or with None where it needs none."""

    def watch(self, credentials: Credentials | None) -> AsyncIterator[str]:
        """External names whose state may have changed since the watch began, without end."""


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """What a provider's factory gets. The entry point `moorage.providers` names a
    `Callable[[ProviderConfig], Provider]`; it is called inside the running event loop."""

    data_dir: Path  # the provider's own folder; survives restarts
    environ: Mapping[str, str] = field(repr=False)  # MOORAGE_* settings, its own among them
    hub_url: str = "https://huggingface.co"
    installation: str = (
        ""  # tells what this installation made from what another one did with the same account
    )
    resolve: Resolve | None = None  # the guard for addresses that users gave
    machine: str = ""  # `Offer.home` of what runs on this machine
