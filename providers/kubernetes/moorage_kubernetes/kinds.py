"""The kinds of objects that we make, and which typed API speaks for each. One table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """`area` is the client's attribute, `method` what its methods end in. `optional`: a cluster may not have
    it, and an account may not be allowed it, as long as nobody asks for it."""

    api_version: str
    name: str
    plural: str
    area: str
    method: str = ""
    optional: bool = False

    @property
    def custom(self) -> bool:
        return self.area == "custom"

    @property
    def group(self) -> str:
        return self.api_version.partition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.partition("/")[2]


NAMESPACE = Kind("v1", "Namespace", "namespaces", "core", "namespace")
POD = Kind("v1", "Pod", "pods", "core", "pod")
SERVICE = Kind("v1", "Service", "services", "core", "service")
SECRET = Kind("v1", "Secret", "secrets", "core", "secret")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", "core", "persistent_volume_claim")
QUOTA = Kind("v1", "ResourceQuota", "resourcequotas", "core", "resource_quota")
LIMITS = Kind("v1", "LimitRange", "limitranges", "core", "limit_range")
NETWORK_POLICY = Kind(
    "networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "networking", "network_policy"
)
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments", "apps", "deployment")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets", "apps", "replica_set")
BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "policy", "pod_disruption_budget")
HORIZONTAL = Kind(
    "autoscaling/v2",
    "HorizontalPodAutoscaler",
    "horizontalpodautoscalers",
    "autoscaling",
    "horizontal_pod_autoscaler",
    optional=True,
)
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects", "custom", optional=True)
TRIGGER_AUTHENTICATION = Kind(
    "keda.sh/v1alpha1", "TriggerAuthentication", "triggerauthentications", "custom", optional=True
)
ROUTE = Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", "custom", optional=True)
TRAFFIC_POLICY = Kind(
    "gateway.envoyproxy.io/v1alpha1",
    "BackendTrafficPolicy",
    "backendtrafficpolicies",
    "custom",
    optional=True,
)

KINDS = {
    kind.name: kind
    for kind in (
        NAMESPACE,
        POD,
        SERVICE,
        SECRET,
        CLAIM,
        QUOTA,
        LIMITS,
        NETWORK_POLICY,
        DEPLOYMENT,
        REPLICA_SET,
        BUDGET,
        HORIZONTAL,
        SCALED_OBJECT,
        TRIGGER_AUTHENTICATION,
        ROUTE,
        TRAFFIC_POLICY,
    )
}
SCALERS = (SCALED_OBJECT, TRIGGER_AUTHENTICATION, HORIZONTAL)
EXTRAS = (*SCALERS, TRAFFIC_POLICY, ROUTE)
