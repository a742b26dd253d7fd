"""What our account must be allowed to do on a cluster, and what does not work without it. Pure.

One table: the check asks for each line by an access review, and the same lines tell an owner which role to
write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

APPLY = ("get", "list", "watch", "create", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Need:
    """`resource` may have a subresource (`pods/log`). `everywhere`: in all namespaces, or not in any."""

    verbs: tuple[str, ...]
    group: str
    resource: str
    needed_for: str
    everywhere: bool = False

    @property
    def name(self) -> str:
        """As access rules are spoken of: `deployments.apps`."""
        resource, slash, subresource = self.resource.partition("/")
        return f"{resource}.{self.group}{slash}{subresource}" if self.group else self.resource


NEEDS = (
    Need(APPLY, "apps", "deployments", "running deployments"),
    Need(APPLY, "", "services", "reaching replicas"),
    Need(("get", "create"), "", "pods/proxy", "sending requests to replicas through the API server"),
    Need(("get", "create"), "", "services/proxy", "sending jobs to a queue through the API server"),
    Need(("get", "create", "patch", "delete"), "", "secrets", "environment variables and registry access"),
    Need(APPLY, "", "persistentvolumeclaims", "persistent volumes"),
    Need(("get", "create", "patch", "delete"), "policy", "poddisruptionbudgets", "staying up while nodes go"),
    Need(APPLY, "autoscaling", "horizontalpodautoscalers", "scaling by cpu and ram without KEDA"),
    Need(APPLY, "keda.sh", "scaledobjects", "scaling with KEDA"),
    Need(
        ("get", "create", "patch", "delete"), "keda.sh", "triggerauthentications", "scaling by queue length"
    ),
    Need(APPLY, "gateway.networking.k8s.io", "httproutes", "routes of the cluster's own gateway"),
    Need(
        ("get", "create", "patch", "delete"),
        "gateway.envoyproxy.io",
        "backendtrafficpolicies",
        "balancing at the cluster's own gateway",
    ),
    Need(("get", "list", "watch"), "", "pods", "telling how replicas are, and why they are not"),
    Need(("get",), "", "pods/log", "logs"),
    Need(("list",), "", "events", "telling why a replica does not start"),
    Need(("get", "create"), "", "namespaces", "making the namespace where it is missing", everywhere=True),
    Need(("list",), "", "nodes", "offers, GPUs and node groups", everywhere=True),
    Need(("list",), "", "pods", "telling what is free on nodes", everywhere=True),
    Need(("list",), "", "services", "finding Prometheus, RabbitMQ and Redis", everywhere=True),
    Need(
        ("list",),
        "storage.k8s.io",
        "storageclasses",
        "telling which access modes volumes can have",
        everywhere=True,
    ),
)


def asked(namespace: str) -> Iterator[tuple[Need, str, dict[str, str]]]:
    """Each need and verb, with the attributes of its access review."""
    for need in NEEDS:
        resource, _, subresource = need.resource.partition("/")
        for verb in need.verbs:
            attributes = {"verb": verb, "group": need.group, "resource": resource}
            if subresource:
                attributes["subresource"] = subresource
            if not need.everywhere:
                attributes["namespace"] = namespace
            yield need, verb, attributes
