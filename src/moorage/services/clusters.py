"""Clusters that organizations import: opened, looked over, listed, removed.

What opens a cluster is sealed like any other account, and belongs to the cluster alone. A cluster that cannot
be reached is kept and shown as such, with what was known of its groups: it may be reached tomorrow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from moorage.credentials import Vault, seal_values
from moorage.domain.catalog import Catalog
from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.deployment import Deployment
from moorage.domain.event import Event
from moorage.domain.identity import Permission, Principal, ProviderCredential
from moorage.domain.node_groups import regrouped
from moorage.domain.notice import NewId
from moorage.errors import AlreadyExists, Clash, Invalid, NotFound, StaleWrite, Unauthorized
from moorage.ports.outside import Clock, SecretBox
from moorage.ports.provider import Credentials
from moorage.ports.store import Append, Insert, Store, Update, Write
from moorage.services.authorization import require
from moorage.services.cluster_access import ClusterAccess
from moorage.services.idempotency import Answer, Idempotency
from moorage.services.live_deployments import first_live

LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class ClusterSurroundings:
    store: Store
    access: ClusterAccess
    vault: Vault
    box: SecretBox
    clock: Clock
    new_id: NewId
    idempotency: Idempotency
    catalog: Catalog
    on_changed: Callable[[], None]  # there is an account more or less: watches follow


@dataclass(frozen=True, slots=True)
class Imported:
    """A cluster with the groups that are there."""

    cluster: Cluster
    groups: tuple[NodeGroup, ...]


Render = Callable[[Imported], bytes]  # the body of an answer


class ImportedClusters:
    def __init__(self, surroundings: ClusterSurroundings) -> None:
        self._out = surroundings

    async def create(
        self,
        principal: Principal,
        name: str,
        given: Mapping[str, str],
        key: str | None,
        fingerprint: str,
        render: Render,
    ) -> Answer:
        """Reads the access, opens the cluster, looks it over and stores all of it at once. Raises Invalid by
        field, and Clash for a name that is taken."""
        require(principal, Permission.MANAGE_CREDENTIALS)
        name = name.strip()

        async def make() -> tuple[Sequence[Write], int, bytes]:
            found, writes = await self._draft(principal, name, given)
            return writes, 201, render(found)

        try:
            answer = await self._out.idempotency.once(principal, key, fingerprint, make)
        except AlreadyExists as error:
            if error.kind != "cluster":
                raise
            raise _name_taken(name) from error
        if not answer.replayed:
            self._out.on_changed()
        return answer

    async def page(self, principal: Principal) -> Sequence[Imported]:
        """Those that are there, oldest first."""
        require(principal, Permission.READ)
        clusters = await self._out.store.clusters(principal.organization_id)
        groups = await self._out.store.node_groups(principal.organization_id)
        return [Imported(c, tuple(g for g in groups if g.cluster_id == c.id)) for c in clusters]

    async def get(self, principal: Principal, cluster_id: str) -> Imported:
        """Raises NotFound, as for one that was removed."""
        require(principal, Permission.READ)
        return await self._there(principal, cluster_id)

    async def check(self, principal: Principal, cluster_id: str) -> Imported:
        """Looked over again, and what was found stored. While it cannot be reached, its groups stay as they
        are."""
        require(principal, Permission.MANAGE_CREDENTIALS)
        found = await self._there(principal, cluster_id)
        provider = self._out.access.provider(found.cluster.provider)
        try:
            credentials = await self._out.vault.open(found.cluster.credential_id)
        except Unauthorized as error:
            report = self._out.access.unreadable(error.detail)
        else:
            report = await self._out.access.report(provider, credentials)
        while True:
            checked = replace(found.cluster, report=report)
            groups, writes = await self._followed(checked, found.groups)
            try:
                await self._out.store.commit([Update(checked), *writes])
            except (StaleWrite, AlreadyExists):  # another check was first, or a group was declared
                found = await self._there(principal, cluster_id)
                continue
            return Imported(checked, groups)

    async def remove(self, principal: Principal, cluster_id: str) -> None:
        """May be repeated. Its access is forgotten; what others run there stays. Raises Clash while a
        deployment uses it."""
        require(principal, Permission.MANAGE_CREDENTIALS)
        store = self._out.store
        while True:
            cluster = await store.cluster(cluster_id, principal.organization_id)
            if cluster is None:
                raise _not_found(cluster_id)
            if cluster.removed_at is not None:
                return
            await self._refuse_while_used(cluster)
            try:
                await store.commit(await self._removal(principal, cluster))
            except StaleWrite:
                continue
            self._out.vault.forget(cluster.credential_id)
            self._out.on_changed()
            return

    # -- parts -------------------------------------------------------------------------------------------

    async def _draft(
        self, principal: Principal, name: str, given: Mapping[str, str]
    ) -> tuple[Imported, Sequence[Write]]:
        access, now = self._out.access, self._out.clock.now()
        if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
            message = f"A name is 1 to {LONGEST_NAME} printable characters."
            raise Invalid.at("body.name", "name", message)
        if any(row.name == name for row in await self._out.store.clusters(principal.organization_id)):
            raise _name_taken(name)
        provider = access.provider()
        values = access.read(provider, given)
        credentials = Credentials(values)
        problem = await access.problem(provider, credentials, given)
        credential = ProviderCredential(
            id=(id_ := self._out.new_id("crd")),
            organization_id=principal.organization_id,
            provider=provider.name,
            name=f"cluster {name}",
            sealed=seal_values(self._out.box, id_, values),
            hint=values["server"],
            created_at=now,
            created_by=principal.id,
        )
        cluster = Cluster(
            id=self._out.new_id("cls"),
            organization_id=principal.organization_id,
            name=name,
            provider=provider.name,
            credential_id=credential.id,
            server=values["server"],
            created_at=now,
            created_by=principal.id,
            report=access.unreadable(problem) if problem else await access.report(provider, credentials),
        )
        groups, writes = await self._followed(cluster, ())
        event = self._event(principal, cluster, "cluster.imported", f"The cluster {name} was imported.")
        return Imported(cluster, groups), [Insert(credential), Insert(cluster), *writes, Append(event)]

    async def _followed(
        self, cluster: Cluster, known: Sequence[NodeGroup]
    ) -> tuple[tuple[NodeGroup, ...], Sequence[Write]]:
        """The groups after the cluster's report, and what makes them so."""
        if cluster.report is None or not cluster.report.reachable:
            return tuple(known), ()
        found = regrouped(
            cluster, known, cluster.report.node_groups, self._out.catalog, self._out.clock.now()
        )
        writes: list[Write] = [Update(group) for group in found.changed]
        for group in found.new:
            gone = await self._out.store.node_group(group.id, group.organization_id)
            writes.append(Insert(group) if gone is None else Update(replace(group, version=gone.version)))
        return found.there, writes

    async def _removal(self, principal: Principal, cluster: Cluster) -> Sequence[Write]:
        now, store = self._out.clock.now(), self._out.store
        credential = await store.provider_credential(cluster.credential_id)
        writes: list[Write] = [Update(replace(cluster, removed_at=now))]
        groups = await store.node_groups(cluster.organization_id, cluster.id)
        writes += [Update(replace(group, removed_at=now)) for group in groups]
        if credential is not None:
            writes.append(Update(replace(credential, sealed="", removed_at=now)))
        told = f"The cluster {cluster.name} was removed."
        return [*writes, Append(self._event(principal, cluster, "cluster.removed", told))]

    async def _refuse_while_used(self, cluster: Cluster) -> None:
        store, organization_id = self._out.store, cluster.organization_id
        user = await first_live(store, organization_id, lambda deployment: uses(deployment, cluster))
        if user is not None:
            raise Clash(
                f"The deployment {user.name!r} ({user.id}) uses this cluster.",
                code="cluster_in_use",
                advice="Delete the deployments that use it first.",
            )

    async def _there(self, principal: Principal, cluster_id: str) -> Imported:
        store, organization_id = self._out.store, principal.organization_id
        cluster = await present(store, organization_id, cluster_id)
        return Imported(cluster, tuple(await store.node_groups(organization_id, cluster_id)))

    def _event(self, principal: Principal, cluster: Cluster, type_: str, message: str) -> Event:
        now, id_ = self._out.clock.now(), self._out.new_id("evt")
        data = {"name": cluster.name, "server": cluster.server}
        return Event(id_, cluster.organization_id, cluster.id, type_, now, principal.id, message, data)


async def present(store: Store, organization_id: str, cluster_id: str) -> Cluster:
    """Raises NotFound for one that was removed, or is another organization's."""
    cluster = await store.cluster(cluster_id, organization_id)
    if cluster is None or cluster.removed_at is not None:
        raise _not_found(cluster_id)
    return cluster


def uses(deployment: Deployment, cluster: Cluster) -> bool:
    """Whether something of it is on the cluster, or its owner wants it there, or it is about to be."""
    if deployment.spec.policy.cluster == cluster.id:
        return True
    attempt = deployment.status.attempt
    rungs = (*deployment.status.ladder, *(() if attempt is None else (attempt.rung,)))
    return any(rung.offer.account == cluster.credential_id for rung in rungs)


def _not_found(cluster_id: str) -> NotFound:
    return NotFound(f"There is no cluster {cluster_id!r}.", code="cluster_not_found")


def _name_taken(name: str) -> Clash:
    return Clash.at(
        "body.name",
        "unique_in_organization",
        f"A cluster named {name!r} exists.",
        code="name_taken",
        advice="Choose another name, or remove that one first.",
    )
