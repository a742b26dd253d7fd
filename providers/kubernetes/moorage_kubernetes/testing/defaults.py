"""What the server adds to what was left out: a client that compares objects meets these."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.statuses import Json


def fill(resource: Resource, value: Json) -> None:
    """Sets the defaults of a built-in kind, in place."""
    setter = _SETTERS.get(resource)
    if setter is not None:
        setter(value)


def _deployment(value: Json) -> None:
    spec = value["spec"]
    _set(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec.setdefault("strategy", {})
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(strategy.setdefault("rollingUpdate", {}), maxSurge="25%", maxUnavailable="25%")
    _pod_spec(spec["template"].setdefault("spec", {}))


def _replica_set(value: Json) -> None:
    _set(value["spec"], replicas=1)
    _pod_spec(value["spec"].get("template", {}).setdefault("spec", {}))


def _pod(value: Json) -> None:
    _pod_spec(value["spec"])
    _set(value["spec"], enableServiceLinks=True, preemptionPolicy="PreemptLowerPriority", priority=0)
    _set(value["spec"], serviceAccountName="default")
    for container in value["spec"].get("containers", ()):
        limits = (container.get("resources") or {}).get("limits") or {}
        if limits:  # requests follow the limits
            requests = container["resources"].setdefault("requests", {})
            _set(requests, **limits)


def _pod_spec(spec: Json) -> None:
    _set(spec, restartPolicy="Always", dnsPolicy="ClusterFirst", schedulerName="default-scheduler")
    _set(spec, terminationGracePeriodSeconds=30, securityContext={})
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        _container(container)
    for volume in spec.get("volumes", ()):
        for source in ("secret", "configMap"):
            if source in volume:
                _set(volume[source], defaultMode=0o644)
        if set(volume) == {"name"}:
            volume["emptyDir"] = {}


def _container(container: Json) -> None:
    last = str(container.get("image", "")).rpartition("/")[2]
    pinned = "@" in last or (":" in last and not last.endswith(":latest"))
    _set(container, resources={}, terminationMessagePath="/dev/termination-log")
    _set(container, terminationMessagePolicy="File", imagePullPolicy="IfNotPresent" if pinned else "Always")
    for port in container.get("ports", ()):
        _set(port, protocol="TCP")
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if name in container:
            _set(container[name], timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
            if "httpGet" in container[name]:
                _set(container[name]["httpGet"], path="/", scheme="HTTP")
            if "grpc" in container[name]:
                _set(container[name]["grpc"], service="")
    for one in container.get("env", ()):
        if "fieldRef" in one.get("valueFrom", {}):
            _set(one["valueFrom"]["fieldRef"], apiVersion="v1")


def _service(value: Json) -> None:
    spec = value["spec"]
    _set(spec, type="ClusterIP", sessionAffinity="None", internalTrafficPolicy="Cluster")
    if spec["sessionAffinity"] == "ClientIP":
        config = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        _set(config, timeoutSeconds=10800)
    if spec["type"] != "ExternalName":
        _set(spec, ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
    for port in spec.get("ports", ()):
        _set(port, protocol="TCP", targetPort=port.get("port"))


def _autoscaler(value: Json) -> None:
    spec = value["spec"]
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}
    cpu["resource"]["target"]["averageUtilization"] = 80  # type: ignore[index]  # a literal built above
    _set(spec, minReplicas=1, metrics=[cpu])


def _claim(value: Json) -> None:
    _set(value["spec"], volumeMode="Filesystem")


def _secret(value: Json) -> None:
    _set(value, type="Opaque")


def _storage_class(value: Json) -> None:
    _set(value, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _network_policy(value: Json) -> None:
    spec = value["spec"]
    _set(spec, podSelector={})
    _set(spec, policyTypes=["Ingress", *(["Egress"] if "egress" in spec else [])])
    for port in _ports(spec):
        _set(port, protocol="TCP")


def _ports(spec: Json) -> Iterable[Json]:
    for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
        yield from rule.get("ports", ())


def _set(holder: Json, **values: object) -> None:
    for name, value in values.items():
        if holder.get(name) is None:
            holder[name] = value


_SETTERS: dict[Resource, Callable[[Json], None]] = {
    known.DEPLOYMENTS: _deployment,
    known.REPLICA_SETS: _replica_set,
    known.PODS: _pod,
    known.SERVICES: _service,
    known.HPAS: _autoscaler,
    known.CLAIMS: _claim,
    known.SECRETS: _secret,
    known.STORAGE_CLASSES: _storage_class,
    known.NETWORK_POLICIES: _network_policy,
}
