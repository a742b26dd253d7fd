"""Whose namespace an endpoint goes to, and what stands around it there. Pure.

On a cluster that an organization brought, it has one namespace and is its own tenant. On an operator's
cluster organizations share the nodes: each has a namespace of its own, with a quota, defaults, and walls.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Protocol  # Any: Kubernetes objects as they are sent

from moorage_kubernetes import marks
from moorage_kubernetes.nodes import GPU_RESOURCE
from moorage_kubernetes.quantities import cpu_quantity, memory_quantity

Object = dict[str, Any]

_ID = re.compile(r"org_[a-z0-9]{1,40}")


class Tenancy(Protocol):
    """`scope` is the namespace that holds all of our objects; None: they are in several."""

    @property
    def scope(self) -> str | None: ...

    def namespace(self, organization_id: str) -> str: ...

    def furniture(self, organization_id: str, installation: str) -> list[Object]:
        """The Namespace itself, and what else must be in it before anything runs there."""


@dataclass(frozen=True, slots=True)
class OneNamespace:
    """Of a cluster that an organization brought."""

    name: str

    @property
    def scope(self) -> str | None:
        return self.name

    def namespace(self, organization_id: str) -> str:
        return self.name

    def furniture(self, organization_id: str, installation: str) -> list[Object]:
        return [_namespace(self.name, installation, {})]


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that one organization may ask for, all of its replicas together. None: no limit."""

    cpus: float | None = None
    memory_bytes: int | None = None
    gpus: int | None = None
    storage_bytes: int | None = None
    pods: int | None = None

    def hard(self) -> dict[str, str]:
        told = {
            "requests.cpu": None if self.cpus is None else cpu_quantity(self.cpus),
            "requests.memory": None if self.memory_bytes is None else memory_quantity(self.memory_bytes),
            f"requests.{GPU_RESOURCE}": None if self.gpus is None else str(self.gpus),
            "requests.storage": None if self.storage_bytes is None else memory_quantity(self.storage_bytes),
            "pods": None if self.pods is None else str(self.pods),
        }
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class NamespaceForEach:
    """Of an operator's cluster. `entrances` are the namespaces whose pods may reach replicas: a gateway's,
    and where the API server's proxy comes out of a tunnel, which many clouds run in kube-system. Where it
    comes from the nodes, no policy of pods keeps it out."""

    prefix: str = "moorage"
    quota: Quota = Quota()
    entrances: tuple[str, ...] = ("kube-system",)
    default_cpu: str = "500m"
    default_memory: str = "1Gi"

    @property
    def scope(self) -> str | None:
        return None

    def namespace(self, organization_id: str) -> str:
        """Stable for the organization: its id where that can be a name, else a digest of it."""
        if _ID.fullmatch(organization_id):
            return f"{self.prefix}-{organization_id.replace('_', '-')}"
        return f"{self.prefix}-{hashlib.sha256(organization_id.encode()).hexdigest()[:26]}"

    def furniture(self, organization_id: str, installation: str) -> list[Object]:
        name = self.namespace(organization_id)
        labels = _labels(installation)
        metadata = {"name": "moorage", "namespace": name, "labels": labels}
        made = [
            _namespace(name, installation, {"pod-security.kubernetes.io/enforce": "baseline"}),
            self._limits(metadata),
            self._walls(metadata),
        ]
        if self.quota.hard():
            quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata}
            made.append({**quota, "spec": {"hard": self.quota.hard()}})
        return made

    def _limits(self, metadata: Object) -> Object:
        """A quota refuses a container that does not say what it asks for: these are its words then."""
        requests = {"cpu": self.default_cpu, "memory": self.default_memory}
        return {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": metadata,
            "spec": {"limits": [{"type": "Container", "defaultRequest": requests}]},
        }

    def _walls(self, metadata: Object) -> Object:
        """Nothing comes in but from the entrances and the nodes. What goes out goes to name servers and the
        world, not to other pods or the cloud's metadata server."""
        outside = {"cidr": "0.0.0.0/0", "except": [*PRIVATE_NETWORKS]}
        names = {"ports": [{"protocol": p, "port": 53} for p in ("UDP", "TCP")]}
        spec: Object = {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "egress": [names, {"to": [{"ipBlock": outside}]}],
        }
        if self.entrances:
            label = "kubernetes.io/metadata.name"
            spec["ingress"] = [
                {"from": [{"namespaceSelector": {"matchLabels": {label: n}}} for n in self.entrances]}
            ]
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata,
            "spec": spec,
        }


PRIVATE_NETWORKS = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")


def _labels(installation: str) -> dict[str, str]:
    return {marks.MANAGED_BY: marks.MANAGER, marks.INSTALLATION: installation}


def _namespace(name: str, installation: str, more: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {**_labels(installation), **more}},
    }
