"""The provider `kubernetes`: clusters that organizations import, each an account of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from moorage.domain.cluster import ClusterReport
from moorage.domain.compute import Feature, Offer, Requirements
from moorage.errors import PermissionMissing
from moorage.ports.outside import Resolve
from moorage.ports.provider import Account, Credentials
from moorage_kubernetes import checking, reading
from moorage_kubernetes.accounts import ClusterAccounts
from moorage_kubernetes.client import ClusterClient
from moorage_kubernetes.endpoints import utc_now
from moorage_kubernetes.failures import ACCESS_ADVICE
from moorage_kubernetes.kubeconfig import read_access
from moorage_kubernetes.offers import PROVIDER, make_offers
from moorage_kubernetes.settings import KubernetesSettings
from moorage_kubernetes.tenancy import OneNamespace


class KubernetesProvider(ClusterAccounts):
    unsupported: Mapping[Feature, str] = {
        Feature.SERVERLESS: "a cluster has its own autoscaler: use workload.autoscale and scale_to_zero",
    }
    credential_fields: Mapping[str, str] = {
        "server": "the https URL of the cluster's API server",
        "certificate_authority": "the PEM of the authority of its certificate",
        "token": "a token of a service account that may run deployments there",
    }

    def __init__(self, settings: KubernetesSettings, resolve: Resolve | None) -> None:
        super().__init__(PROVIDER, settings, resolve, lambda client: OneNamespace(client.namespace))

    def read_access(self, given: Mapping[str, str]) -> Mapping[str, str]:
        return read_access(given, utc_now())

    async def check(self, credentials: Credentials) -> ClusterReport:
        """Whoever asks for one wants to know how it is now."""
        client = self._clients.of(credentials)
        self._of(credentials).forget_tools()
        return await checking.check(client, client.values, utc_now())

    async def check_credentials(self, credentials: Credentials | None) -> Account:
        """Asks the cluster who we are to it, by what we may do there. Its version it tells anybody."""
        client = self._clients.of(credentials)
        attributes = {
            "verb": "create",
            "group": "apps",
            "resource": "deployments",
            "namespace": client.namespace,
        }
        if not await reading.allowed(client, attributes):
            detail = f"The cluster's account may not create deployments in namespace {client.namespace}"
            raise PermissionMissing(detail, advice=ACCESS_ADVICE)
        return Account(_account_id(client), f"Kubernetes {await reading.version(client)} at {client.server}")

    async def offers(self, need: Requirements, credentials: Credentials | None) -> Sequence[Offer]:
        """Raises Rejected where the cluster cannot do what the workload asks of it."""
        client = self._clients.of(credentials)
        nodes = await self._node_states(client)
        await self._of(credentials).refuse_impossible(need)
        return self._runnable(make_offers(need, need.node_groups, nodes, utc_now().date()))


def _account_id(client: ClusterClient) -> str:
    """Stable for the cluster, whoever opens it."""
    text = f"moorage kubernetes cluster\0{client.server}\0{client.values.get('certificate_authority', '')}"
    return "kubernetes-" + hashlib.sha256(text.encode()).hexdigest()[:32]
