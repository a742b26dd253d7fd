"""What a server refuses beyond the schemas: names, references within an object, immutable fields."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from itertools import pairwise

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.causes import Causes, invalid, one_of, required
from moorage_kubernetes.testing.name_rules import label_rules, metadata_rules
from moorage_kubernetes.testing.nodes import ANY_MODE
from moorage_kubernetes.testing.pod_rules import amount_rules, pod_spec_rules, port_rules
from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.selectors import matches
from moorage_kubernetes.testing.statuses import Cause, Json


def broken(resource: Resource, value: Json, before: Json | None) -> list[Cause]:
    """What the object breaks; `before` is what is stored under its name."""
    found = list(metadata_rules(resource, value["metadata"]))
    for rule in _RULES.get(resource, ()):
        found.extend(rule(value))
    if before is not None:
        found += [
            invalid(".".join(path), "...", "field is immutable")
            for path in _IMMUTABLE.get(resource, ())
            if _at(value, path) != _at(before, path)
        ]
    return found


def _at(value: Json, path: tuple[str, ...]) -> object:
    found: object = value
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _deployment(value: Json) -> Causes:
    spec = value["spec"]
    yield from _selected(spec)
    strategy = spec["strategy"]
    yield from one_of("spec.strategy.type", strategy["type"], "Recreate", "RollingUpdate")
    rolling = strategy.get("rollingUpdate")
    if strategy["type"] == "Recreate" and rolling is not None:
        why = "may not be specified when strategy `type` is 'Recreate'"
        yield Cause("FieldValueForbidden", f"Forbidden: {why}", "spec.strategy.rollingUpdate")
    elif rolling is not None and _none(rolling.get("maxSurge")) and _none(rolling.get("maxUnavailable")):
        yield invalid("spec.strategy.rollingUpdate.maxUnavailable", 0, "may not be 0 when `maxSurge` is 0")
    if spec["progressDeadlineSeconds"] <= spec.get("minReadySeconds", 0):
        seconds = spec["progressDeadlineSeconds"]
        yield invalid("spec.progressDeadlineSeconds", seconds, "must be greater than minReadySeconds")
    if spec["replicas"] < 0:
        yield invalid("spec.replicas", spec["replicas"], "must be greater than or equal to 0")


def _none(amount: object) -> bool:
    return amount in (0, "0%", "0")


def _selected(spec: Json) -> Causes:
    labels = spec["template"].get("metadata", {}).get("labels") or {}
    for key, value in labels.items():
        yield from label_rules("spec.template.metadata.labels", key, value)
    if not spec.get("selector"):
        yield required("spec.selector")
    elif not matches(spec["selector"], labels):
        why = "`selector` does not match template `labels`"
        yield invalid("spec.template.metadata.labels", labels, why)
    policy = spec["template"]["spec"].get("restartPolicy")
    yield from one_of("spec.template.spec.restartPolicy", policy, "Always")
    yield from pod_spec_rules(spec["template"]["spec"], "spec.template.spec")


def _pod(value: Json) -> Causes:
    yield from pod_spec_rules(value["spec"], "spec")


def _service(value: Json) -> Causes:
    spec = value["spec"]
    ports = spec.get("ports") or []
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    yield from one_of("spec.type", spec.get("type"), *kinds)
    yield from one_of("spec.sessionAffinity", spec.get("sessionAffinity"), "ClientIP", "None")
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        yield required("spec.ports")
    names = [port.get("name") for port in ports]
    for index, port in enumerate(ports):
        yield from port_rules(f"spec.ports[{index}].port", port["port"])
        if len(ports) > 1 and not port.get("name"):
            yield required(f"spec.ports[{index}].name")
        if port.get("name") and port["name"] in names[:index]:
            message = f'Duplicate value: "{port["name"]}"'
            yield Cause("FieldValueDuplicate", message, f"spec.ports[{index}].name")


def _autoscaler(value: Json) -> Causes:
    spec = value["spec"]
    if spec["minReplicas"] < 1:
        yield invalid("spec.minReplicas", spec["minReplicas"], "must be greater than or equal to 1")
    if spec["maxReplicas"] < spec["minReplicas"]:
        why = "must be greater than or equal to `minReplicas`"
        yield invalid("spec.maxReplicas", spec["maxReplicas"], why)


def _budget(value: Json) -> Causes:
    if value["spec"].get("minAvailable") is not None and value["spec"].get("maxUnavailable") is not None:
        yield invalid("spec", "...", "minAvailable and maxUnavailable cannot be both set")


def _claim(value: Json) -> Causes:
    spec = value["spec"]
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    for mode in spec.get("accessModes") or ():
        yield from one_of("spec.accessModes", mode, *ANY_MODE)
    if "storage" not in (spec.get("resources") or {}).get("requests", {}):
        yield required("spec.resources[storage]")
    else:
        yield from amount_rules(spec["resources"], "spec.resources")


def _secret(value: Json) -> Causes:
    for name, text in (value.get("data") or {}).items():
        if len(name) > 253 or not re.fullmatch(r"[-._a-zA-Z0-9]+", name):
            yield invalid(f"data[{name}]", name, "a valid config key must consist of alphanumeric characters")
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError):
            yield invalid(f"data[{name}]", "<secret>", "illegal base64 data")
    if value.get("type") == "kubernetes.io/dockerconfigjson" and ".dockerconfigjson" not in (
        value.get("data") or {}
    ):
        yield required("data[.dockerconfigjson]")


def _scaled_object(value: Json) -> Causes:
    spec = value["spec"]
    counts = [spec.get(name) for name in ("idleReplicaCount", "minReplicaCount", "maxReplicaCount")]
    for small, large in pairwise(count for count in counts if count is not None):
        if small > large:
            yield invalid("spec", "object", "minReplicaCount must be less than or equal to maxReplicaCount")
    kinds = {trigger["type"] for trigger in spec["triggers"]}
    if kinds <= {"cpu", "memory"} and spec.get("minReplicaCount") == 0:
        why = "scaling to zero needs a trigger other than cpu and memory"
        yield invalid("spec.minReplicaCount", 0, why)


_RULES: dict[Resource, tuple[Callable[[Json], Causes], ...]] = {
    known.DEPLOYMENTS: (_deployment,),
    known.REPLICA_SETS: (lambda value: _selected(value["spec"]),),
    known.PODS: (_pod,),
    known.SERVICES: (_service,),
    known.HPAS: (_autoscaler,),
    known.BUDGETS: (_budget,),
    known.CLAIMS: (_claim,),
    known.SECRETS: (_secret,),
    known.SCALED_OBJECTS: (_scaled_object,),
}
_IMMUTABLE: dict[Resource, tuple[tuple[str, ...], ...]] = {
    known.DEPLOYMENTS: (("spec", "selector"),),
    known.REPLICA_SETS: (("spec", "selector"),),
    known.SERVICES: (("spec", "clusterIP"),),
    known.CLAIMS: (("spec", "accessModes"), ("spec", "storageClassName")),
    known.SECRETS: (("type",),),
    known.STORAGE_CLASSES: (("provisioner",), ("parameters",), ("volumeBindingMode",)),
    known.PODS: (("spec", "nodeName"), ("spec", "volumes")),
}
