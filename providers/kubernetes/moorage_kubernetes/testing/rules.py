"""What a server refuses beyond the schemas: names, references within an object, immutable fields."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.nodes import ANY_MODE
from moorage_kubernetes.testing.quantities import quantity
from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.selectors import matches
from moorage_kubernetes.testing.statuses import Cause, Json

_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SERVICE = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_QUALIFIED = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
    "and end with an alphanumeric character"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character"
)
Causes = Iterator[Cause]


def _invalid(field: str, value: object, why: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {why}", field)


def _required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value{': ' + why if why else ''}", field)


def _one_of(field: str, value: object, *allowed: str) -> Causes:
    if value is not None and value not in allowed:
        listed = ", ".join(f'"{one}"' for one in allowed)
        message = f'Unsupported value: "{value}": supported values: {listed}'
        yield Cause("FieldValueNotSupported", message, field)


def broken(resource: Resource, value: Json, before: Json | None) -> list[Cause]:
    """What the object breaks; `before` is what is stored under its name."""
    found = list(_metadata(resource, value["metadata"]))
    for rule in _RULES.get(resource, ()):
        found.extend(rule(value))
    if before is not None:
        found += [
            _invalid(".".join(path), "...", "field is immutable")
            for path in _IMMUTABLE.get(resource, ())
            if _at(value, path) != _at(before, path)
        ]
    return found


def _at(value: Json, path: tuple[str, ...]) -> object:
    found: object = value
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _metadata(resource: Resource, metadata: Json) -> Causes:
    name = metadata["name"]
    strict = resource in (known.SERVICES, known.NAMESPACES)
    most = 63 if strict else 253
    pattern, rule = (_LABEL, _LABEL_RULE) if strict else (_SUBDOMAIN, _SUBDOMAIN_RULE)
    if resource == known.SERVICES:
        pattern = _SERVICE
        rule = "a DNS-1035 label must start with an alphabetic character and be of lower case"
    if resource.group != "rbac.authorization.k8s.io" and (len(name) > most or not pattern.match(name)):
        why = rule if not pattern.match(name) else f"must be no more than {most} characters"
        yield _invalid("metadata.name", name, why)
    for key, value in (metadata.get("labels") or {}).items():
        yield from _label("metadata.labels", key, value)
    for key in metadata.get("annotations") or {}:
        yield from _key("metadata.annotations", key)


def _label(field: str, key: str, value: str) -> Causes:
    yield from _key(field, key)
    if value and (len(value) > 63 or not _QUALIFIED.match(value)):
        yield _invalid(
            field, value, _VALUE_RULE if len(value) <= 63 else "must be no more than 63 characters"
        )


def _key(field: str, key: str) -> Causes:
    prefix, slash, name = key.rpartition("/")
    if len(name) > 63 or not _QUALIFIED.match(name) or (slash and not _SUBDOMAIN.match(prefix.lower())):
        yield _invalid(field, key, "name part must consist of alphanumeric characters, '-', '_' or '.'")


def _deployment(value: Json) -> Causes:
    spec = value["spec"]
    yield from _selected(spec)
    strategy = spec["strategy"]
    yield from _one_of("spec.strategy.type", strategy["type"], "Recreate", "RollingUpdate")
    rolling = strategy.get("rollingUpdate")
    if strategy["type"] == "Recreate" and rolling is not None:
        why = "may not be specified when strategy `type` is 'Recreate'"
        yield Cause("FieldValueForbidden", f"Forbidden: {why}", "spec.strategy.rollingUpdate")
    elif rolling is not None and _none(rolling.get("maxSurge")) and _none(rolling.get("maxUnavailable")):
        yield _invalid("spec.strategy.rollingUpdate.maxUnavailable", 0, "may not be 0 when `maxSurge` is 0")
    if spec["progressDeadlineSeconds"] <= spec.get("minReadySeconds", 0):
        seconds = spec["progressDeadlineSeconds"]
        yield _invalid("spec.progressDeadlineSeconds", seconds, "must be greater than minReadySeconds")
    if spec["replicas"] < 0:
        yield _invalid("spec.replicas", spec["replicas"], "must be greater than or equal to 0")


def _none(amount: object) -> bool:
    return amount in (0, "0%", "0")


def _selected(spec: Json) -> Causes:
    labels = spec["template"].get("metadata", {}).get("labels") or {}
    for key, value in labels.items():
        yield from _label("spec.template.metadata.labels", key, value)
    if not spec.get("selector"):
        yield _required("spec.selector")
    elif not matches(spec["selector"], labels):
        why = "`selector` does not match template `labels`"
        yield _invalid("spec.template.metadata.labels", labels, why)
    policy = spec["template"]["spec"].get("restartPolicy")
    yield from _one_of("spec.template.spec.restartPolicy", policy, "Always")
    yield from _pod_spec(spec["template"]["spec"], "spec.template.spec")


def _pod(value: Json) -> Causes:
    yield from _pod_spec(value["spec"], "spec")


def _pod_spec(spec: Json, at: str) -> Causes:
    volumes = {volume["name"] for volume in spec.get("volumes", ())}
    containers = spec.get("containers") or []
    if not containers:
        yield _required(f"{at}.containers")
    names: set[str] = set()
    for index, one in enumerate(containers):
        where = f"{at}.containers[{index}]"
        if one["name"] in names:
            yield Cause("FieldValueDuplicate", f'Duplicate value: "{one["name"]}"', f"{where}.name")
        names.add(one["name"])
        yield from _container(one, where, volumes)
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        if toleration.get("operator") == "Exists" and toleration.get("value"):
            why = "value must be empty when `operator` is 'Exists'"
            yield _invalid(f"{at}.tolerations[{index}].operator", toleration["value"], why)
        where = f"{at}.tolerations[{index}]"
        yield from _one_of(f"{where}.operator", toleration.get("operator"), "Equal", "Exists", "Lt", "Gt")
        effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
        yield from _one_of(f"{where}.effect", toleration.get("effect") or None, *effects)


def _container(one: Json, at: str, volumes: set[str]) -> Causes:
    if not one.get("image"):
        yield _required(f"{at}.image")
    if len(one["name"]) > 63 or not _LABEL.match(one["name"]):
        yield _invalid(f"{at}.name", one["name"], _LABEL_RULE)
    policy = one.get("imagePullPolicy")
    yield from _one_of(f"{at}.imagePullPolicy", policy, "Always", "IfNotPresent", "Never")
    for index, mount in enumerate(one.get("volumeMounts", ())):
        if mount["name"] not in volumes:
            message = f'Not found: "{mount["name"]}"'
            yield Cause("FieldValueNotFound", message, f"{at}.volumeMounts[{index}].name")
    for index, port in enumerate(one.get("ports", ())):
        yield from _port(f"{at}.ports[{index}].containerPort", port["containerPort"])
        if len(port.get("name", "")) > 15:
            yield _invalid(f"{at}.ports[{index}].name", port["name"], "must be no more than 15 characters")
    for probe in ("livenessProbe", "startupProbe"):
        if one.get(probe, {}).get("successThreshold", 1) != 1:
            yield _invalid(f"{at}.{probe}.successThreshold", one[probe]["successThreshold"], "must be 1")
    yield from _amounts(one.get("resources") or {}, f"{at}.resources")
    for index, variable in enumerate(one.get("env", ())):
        if "=" in variable["name"] or not variable["name"]:
            yield _invalid(f"{at}.env[{index}].name", variable["name"], "must not contain '='")
        if variable.get("value") and variable.get("valueFrom"):
            why = "may not be specified when `value` is not empty"
            yield _invalid(f"{at}.env[{index}].valueFrom", "", why)


def _amounts(given: Json, at: str) -> Causes:
    amounts: dict[str, dict[str, Fraction]] = {"limits": {}, "requests": {}}
    for side, held in amounts.items():
        for name, text in (given.get(side) or {}).items():
            try:
                held[name] = quantity(text)
            except ValueError as error:
                yield _invalid(f"{at}.{side}[{name}]", text, str(error))
    for name, amount in amounts["requests"].items():
        limit = amounts["limits"].get(name)
        whole = "/" in name and not name.startswith("kubernetes.io/")
        if limit is not None and amount > limit:
            shown = given["limits"][name]
            why = f"must be less than or equal to {name} limit of {shown}"
            yield _invalid(f"{at}.requests", given["requests"][name], why)
        elif whole and limit != amount:
            why = f"must be equal to {name} limit" if limit is not None else "Limit must be set"
            yield _invalid(f"{at}.requests", given["requests"][name], why)
    for name, amount in amounts["limits"].items():
        if "/" in name and amount.denominator != 1:
            yield _invalid(f"{at}.limits[{name}]", given["limits"][name], "must be an integer")


def _port(field: str, number: object) -> Causes:
    if not isinstance(number, int) or not 1 <= number <= 65535:
        yield _invalid(field, number, "must be between 1 and 65535, inclusive")


def _service(value: Json) -> Causes:
    spec = value["spec"]
    ports = spec.get("ports") or []
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    yield from _one_of("spec.type", spec.get("type"), *kinds)
    yield from _one_of("spec.sessionAffinity", spec.get("sessionAffinity"), "ClientIP", "None")
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        yield _required("spec.ports")
    names = [port.get("name") for port in ports]
    for index, port in enumerate(ports):
        yield from _port(f"spec.ports[{index}].port", port["port"])
        if len(ports) > 1 and not port.get("name"):
            yield _required(f"spec.ports[{index}].name")
        if port.get("name") and port["name"] in names[:index]:
            message = f'Duplicate value: "{port["name"]}"'
            yield Cause("FieldValueDuplicate", message, f"spec.ports[{index}].name")


def _autoscaler(value: Json) -> Causes:
    spec = value["spec"]
    if spec["minReplicas"] < 1:
        yield _invalid("spec.minReplicas", spec["minReplicas"], "must be greater than or equal to 1")
    if spec["maxReplicas"] < spec["minReplicas"]:
        why = "must be greater than or equal to `minReplicas`"
        yield _invalid("spec.maxReplicas", spec["maxReplicas"], why)


def _budget(value: Json) -> Causes:
    if value["spec"].get("minAvailable") is not None and value["spec"].get("maxUnavailable") is not None:
        yield _invalid("spec", "...", "minAvailable and maxUnavailable cannot be both set")


def _claim(value: Json) -> Causes:
    spec = value["spec"]
    if not spec.get("accessModes"):
        yield _required("spec.accessModes", "at least 1 access mode is required")
    for mode in spec.get("accessModes") or ():
        yield from _one_of("spec.accessModes", mode, *ANY_MODE)
    if "storage" not in (spec.get("resources") or {}).get("requests", {}):
        yield _required("spec.resources[storage]")
    else:
        yield from _amounts(spec["resources"], "spec.resources")


def _secret(value: Json) -> Causes:
    for name, text in (value.get("data") or {}).items():
        if len(name) > 253 or not re.fullmatch(r"[-._a-zA-Z0-9]+", name):
            yield _invalid(
                f"data[{name}]", name, "a valid config key must consist of alphanumeric characters"
            )
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError):
            yield _invalid(f"data[{name}]", "<secret>", "illegal base64 data")
    if value.get("type") == "kubernetes.io/dockerconfigjson" and ".dockerconfigjson" not in (
        value.get("data") or {}
    ):
        yield _required("data[.dockerconfigjson]")


def _scaled_object(value: Json) -> Causes:
    spec = value["spec"]
    counts = [spec.get(name) for name in ("idleReplicaCount", "minReplicaCount", "maxReplicaCount")]
    for small, large in pairwise(count for count in counts if count is not None):
        if small > large:
            yield _invalid("spec", "object", "minReplicaCount must be less than or equal to maxReplicaCount")
    kinds = {trigger["type"] for trigger in spec["triggers"]}
    if kinds <= {"cpu", "memory"} and spec.get("minReplicaCount") == 0:
        why = "scaling to zero needs a trigger other than cpu and memory"
        yield _invalid("spec.minReplicaCount", 0, why)


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
