"""The resources that this server knows: what a path names, and what discovery tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """`subresources` beside the object itself; `verbs` as discovery tells them."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    subresources: frozenset[str] = frozenset()
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As in messages and rules: deployments.apps."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _status(*more: str) -> frozenset[str]:
    return frozenset({"status", *more})


_RBAC = "rbac.authorization.k8s.io"

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False, _status(), ("ns",))
NODES = Resource("", "v1", "nodes", "Node", False, _status(), ("no",))
PODS = Resource("", "v1", "pods", "Pod", True, _status("log", "proxy"), ("po",))
SERVICES = Resource("", "v1", "services", "Service", True, _status("proxy"), ("svc",))
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", short=("cm",))
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, _status(), ("pvc",))
VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", False, _status(), ("pv",))
EVENTS = Resource("", "v1", "events", "Event", short=("ev",))
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", True, _status(), ("quota",))
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange", short=("limits",))
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",))
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", True, _status("scale"), ("deploy",))
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet", True, _status("scale"), ("rs",))
HPAS = Resource(
    "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True, _status(), ("hpa",)
)
BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, _status(), ("pdb",))
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", False, short=("sc",))
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",))
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io",
    "v1",
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
    False,
    verbs=("create",),
)
ROLES = Resource(_RBAC, "v1", "roles", "Role")
ROLE_BINDINGS = Resource(_RBAC, "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLES = Resource(_RBAC, "v1", "clusterroles", "ClusterRole", False)
CLUSTER_ROLE_BINDINGS = Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
CRDS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    False,
    _status(),
    ("crd",),
)

SCALED_OBJECTS = Resource("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject", True, _status(), ("so",))
TRIGGER_AUTHENTICATIONS = Resource(
    "keda.sh", "v1alpha1", "triggerauthentications", "TriggerAuthentication", True, _status(), ("ta",)
)
GATEWAY_CLASSES = Resource(
    "gateway.networking.k8s.io", "v1", "gatewayclasses", "GatewayClass", False, _status(), ("gc",)
)
GATEWAYS = Resource("gateway.networking.k8s.io", "v1", "gateways", "Gateway", True, _status(), ("gtw",))
HTTP_ROUTES = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute", True, _status())
TRAFFIC_POLICIES = Resource(
    "gateway.envoyproxy.io", "v1alpha1", "backendtrafficpolicies", "BackendTrafficPolicy", True, _status()
)
POD_METRICS = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", verbs=("get", "list"))
NODE_METRICS = Resource("metrics.k8s.io", "v1beta1", "nodes", "NodeMetrics", False, verbs=("get", "list"))

BUILT_IN: tuple[Resource, ...] = (
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    SECRETS,
    CONFIG_MAPS,
    CLAIMS,
    VOLUMES,
    EVENTS,
    QUOTAS,
    LIMIT_RANGES,
    SERVICE_ACCOUNTS,
    DEPLOYMENTS,
    REPLICA_SETS,
    HPAS,
    BUDGETS,
    STORAGE_CLASSES,
    NETWORK_POLICIES,
    ACCESS_REVIEWS,
    ROLES,
    ROLE_BINDINGS,
    CLUSTER_ROLES,
    CLUSTER_ROLE_BINDINGS,
    LEASES,
    CRDS,
)

# What an operator may install on a cluster, or not.
ADD_ONS: dict[str, tuple[Resource, ...]] = {
    "keda": (SCALED_OBJECTS, TRIGGER_AUTHENTICATIONS),
    "gateway_api": (GATEWAY_CLASSES, GATEWAYS, HTTP_ROUTES),
    "envoy_gateway": (TRAFFIC_POLICIES,),
    "metrics_server": (POD_METRICS, NODE_METRICS),
}


@dataclass(slots=True)
class Catalog:
    """The resources served now: the built-in ones and those of the installed add-ons."""

    installed: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[Resource]:
        yield from BUILT_IN
        for add_on in sorted(self.installed):
            yield from ADD_ONS[add_on]

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return next(
            (r for r in self if (r.group, r.version, r.plural) == (group, version, plural)),
            None,
        )

    def named(self, plural: str, group: str | None = None) -> Resource:
        """The resource of a plural or a kind, in any case. Raises KeyError where nothing is called so."""
        word = plural.lower()
        for one in self:
            known = (one.plural, one.kind.lower(), one.qualified, *one.short)
            if word in known and group in (None, one.group):
                return one
        raise KeyError(f"no resource is called {plural}")

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        return next((r for r in self if (r.api_version, r.kind) == (api_version, kind)), None)

    def install(self, add_ons: Iterable[str]) -> None:
        """Raises ValueError for an add-on that does not exist."""
        for add_on in add_ons:
            if add_on not in ADD_ONS:
                raise ValueError(f"{add_on} is no add-on; there are {', '.join(ADD_ONS)}")
            self.installed.add(add_on)
