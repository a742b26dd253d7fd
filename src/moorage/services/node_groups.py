"""Node groups that owners declare: which nodes, at what price, and of what shape where there are none yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from moorage.domain.cluster import Cluster, NodeGroup
from moorage.domain.event import Event
from moorage.domain.identity import Permission, Principal
from moorage.domain.node_groups import NewNodeGroup, broken_rules, declared
from moorage.domain.notice import NewId
from moorage.errors import AlreadyExists, Clash, Invalid, NotFound, StaleWrite
from moorage.ports.outside import Clock
from moorage.ports.store import Append, Insert, Store, Update, Write
from moorage.services.authorization import require
from moorage.services.clusters import present
from moorage.services.idempotency import Answer, Idempotency
from moorage.services.live_deployments import first_live

Render = Callable[[NodeGroup, Cluster], bytes]  # the body of an answer


class NodeGroups:
    def __init__(self, store: Store, clock: Clock, new_id: NewId, idempotency: Idempotency) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._idempotency = idempotency

    async def create(
        self,
        principal: Principal,
        cluster_id: str,
        new: NewNodeGroup,
        key: str | None,
        fingerprint: str,
        render: Render,
    ) -> Answer:
        """Declares a group. One that was discovered with the same selector becomes it, and keeps its id.
        Raises Invalid by field, and Clash for a name or a selector that is taken."""
        require(principal, Permission.MANAGE_CREDENTIALS)
        cluster = await present(self._store, principal.organization_id, cluster_id)
        new = replace(new, name=new.name.strip())

        async def make() -> tuple[Sequence[Write], int, bytes]:
            errors = broken_rules(new)
            if errors:
                raise Invalid("; ".join(e.message for e in errors), errors=errors)
            group, write = await self._draft(cluster, new)
            told = f"The node group {group.name} was declared."
            event = self._event(principal, cluster, group, "node_group.declared", told)
            return [write, Append(event)], 201, render(group, cluster)

        try:
            return await self._idempotency.once(principal, key, fingerprint, make)
        except AlreadyExists as error:
            if error.kind != "node_group":
                raise
            raise _selector_taken() from error  # somebody declared the same at the same time

    async def page(self, principal: Principal, cluster_id: str) -> tuple[Cluster, Sequence[NodeGroup]]:
        """Those that are there, oldest first."""
        require(principal, Permission.READ)
        cluster = await present(self._store, principal.organization_id, cluster_id)
        return cluster, await self._store.node_groups(cluster.organization_id, cluster.id)

    async def remove(self, principal: Principal, cluster_id: str, group_id: str) -> None:
        """Of a declared one; may be repeated. Raises Clash for one that was discovered, which follows the
        cluster's labels, and while a deployment names it."""
        require(principal, Permission.MANAGE_CREDENTIALS)
        cluster = await present(self._store, principal.organization_id, cluster_id)
        while True:
            group = await self._store.node_group(group_id, cluster.organization_id)
            if group is None or group.cluster_id != cluster.id:
                raise NotFound(
                    f"The cluster {cluster.name!r} has no node group {group_id!r}.",
                    code="node_group_not_found",
                )
            if group.removed_at is not None:
                return
            if group.discovered:
                raise Clash(
                    f"The node group {group.name!r} is what the nodes' labels say.",
                    code="node_group_discovered",
                    advice="It goes with the first check that does not find its nodes.",
                )
            await self._refuse_while_named(group)
            event = self._event(
                principal, cluster, group, "node_group.removed", f"The node group {group.name} was removed."
            )
            try:
                await self._store.commit([Update(replace(group, removed_at=event.at)), Append(event)])
            except StaleWrite:
                continue
            return

    async def _draft(self, cluster: Cluster, new: NewNodeGroup) -> tuple[NodeGroup, Write]:
        group = declared(cluster, new, self._clock.now())
        others = await self._store.node_groups(cluster.organization_id, cluster.id)
        if any(other.name == new.name and other.id != group.id for other in others):
            raise Clash.at(
                "body.name",
                "unique_in_cluster",
                f"The cluster has a node group named {new.name!r}.",
                code="name_taken",
                advice="Choose another name.",
            )
        old = await self._store.node_group(group.id, cluster.organization_id)
        if old is None:
            return group, Insert(group)
        if old.removed_at is None and not old.discovered:
            raise _selector_taken()
        known = replace(
            group,
            created_at=old.created_at if old.removed_at is None else group.created_at,
            instance_type=old.instance_type,
            region=old.region,
            spot=old.spot,
            shape=group.shape or old.shape,
            version=old.version,
        )
        return known, Update(known)

    async def _refuse_while_named(self, group: NodeGroup) -> None:
        user = await first_live(
            self._store, group.organization_id, lambda d: group.id in d.spec.policy.node_groups
        )
        if user is not None:
            raise Clash(
                f"The deployment {user.name!r} ({user.id}) names this node group.",
                code="node_group_in_use",
                advice="Delete the deployments that name it first.",
            )

    def _event(
        self, principal: Principal, cluster: Cluster, group: NodeGroup, type_: str, message: str
    ) -> Event:
        now, id_ = self._clock.now(), self._new_id("evt")
        data = {"cluster": cluster.name, "name": group.name}
        return Event(id_, cluster.organization_id, cluster.id, type_, now, principal.id, message, data)


def _selector_taken() -> Clash:
    return Clash.at(
        "body.selector",
        "unique_in_cluster",
        "Another node group of the cluster was declared with this selector.",
        code="selector_taken",
        advice="Remove that one first to declare it anew.",
    )
