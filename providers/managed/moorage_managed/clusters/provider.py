"""The provider `managed` on the operator's clusters, each an account that the operator brings (ADR 15)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from moorage.domain.cluster import NodeGroup
from moorage.domain.compute import Feature, Offer, Requirements
from moorage.errors import FieldError, NoCapacity, PermissionMissing, Rejected
from moorage.ports.provider import Account, Credentials
from moorage_kubernetes import reading
from moorage_kubernetes.accounts import ClusterAccounts
from moorage_kubernetes.client import fingerprint
from moorage_kubernetes.endpoints import utc_now
from moorage_kubernetes.offers import make_offers
from moorage_managed.clusters.groups import operator_groups
from moorage_managed.clusters.prices import priced_by_replica
from moorage_managed.clusters.settings import ClusterSettings

# What the account must be allowed to make, in any namespace and outside of them.
NEEDED = (("", "namespaces"), ("apps", "deployments"), ("networking.k8s.io", "networkpolicies"))


class OperatorClusters(ClusterAccounts):
    """The operator's own kubeconfig says where to connect, and no user does: no guard for addresses here."""

    unsupported: Mapping[Feature, str] = {
        Feature.CLUSTER: "the operator's clusters are not named: any that fits may be chosen",
        Feature.SERVERLESS: "a cluster has its own autoscaler: use workload.autoscale and scale_to_zero",
    }
    credential_fields: Mapping[str, str] = {}

    def __init__(self, settings: ClusterSettings) -> None:
        super().__init__("managed", settings.kubernetes, None, lambda _: settings.tenancy)
        self._accounts = settings.accounts
        self._price_per_hour = settings.price_per_hour
        self._names = {fingerprint(opened): name for name, opened in settings.accounts.items()}

    def operator_accounts(self) -> Mapping[str, Credentials]:
        return self._accounts

    async def check_credentials(self, credentials: Credentials | None) -> Account:
        client = self._clients.of(credentials)
        for group, resource in NEEDED:
            if not await reading.allowed(client, {"verb": "create", "group": group, "resource": resource}):
                raise PermissionMissing(
                    f"The account of the operator's cluster {self._name_of(credentials)} may not create "
                    f"{resource}",
                    advice="Bind it to a ClusterRole that allows it in all namespaces.",
                )
        detail = f"Kubernetes {await reading.version(client)} at {client.server}"
        return Account(f"operator-{self._name_of(credentials)}", detail)

    async def offers(self, need: Requirements, credentials: Credentials | None) -> Sequence[Offer]:
        """Of one cluster. Raises Rejected for what it cannot do, or what organizations cannot do on a cluster
        that they share."""
        if need.workload is not None and need.workload.queued is not None:
            message = "the operator's clusters keep organizations apart, and so from a queue they would share"
            error = FieldError("workload.queued", "own_cluster", message)
            advice = "leave out the queue, or name a cluster of your own"
            raise Rejected(message, fields=(error,), advice=advice)
        await self._of(credentials).refuse_impossible(need)
        client, cluster, now = self._clients.of(credentials), self._name_of(credentials), utc_now()
        nodes = await self._node_states(client)
        groups = {group.id: group for group in operator_groups(cluster, nodes, now)}
        if not groups:
            raise NoCapacity(f"the operator's cluster {cluster} has no nodes now")
        offers = make_offers(need, tuple(groups.values()), nodes, now.date(), self.name)
        return self._runnable(self._told(offer, groups[offer.ref["node_group"]], need) for offer in offers)

    def _told(self, offer: Offer, group: NodeGroup, need: Requirements) -> Offer:
        """With a price in any case, and where it is: nobody can look up the operator's groups by id."""
        if group.price_per_hour is None:
            offer = priced_by_replica(offer, need, self._price_per_hour)
        return replace(offer, note=f"{group.cluster_id}/{group.name}: {offer.note}")

    def _name_of(self, credentials: Credentials | None) -> str:
        return "" if credentials is None else self._names.get(fingerprint(credentials), "")
