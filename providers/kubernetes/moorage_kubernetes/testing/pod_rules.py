"""What a server refuses of a pod's spec beyond the schema."""

from __future__ import annotations

from fractions import Fraction

from moorage_kubernetes.testing.causes import Causes, invalid, one_of, required
from moorage_kubernetes.testing.name_rules import LABEL, LABEL_RULE
from moorage_kubernetes.testing.quantities import quantity
from moorage_kubernetes.testing.statuses import Cause, Json


def pod_spec_rules(spec: Json, at: str) -> Causes:
    volumes = {volume["name"] for volume in spec.get("volumes", ())}
    containers = spec.get("containers") or []
    if not containers:
        yield required(f"{at}.containers")
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
            yield invalid(f"{at}.tolerations[{index}].operator", toleration["value"], why)
        where = f"{at}.tolerations[{index}]"
        yield from one_of(f"{where}.operator", toleration.get("operator"), "Equal", "Exists", "Lt", "Gt")
        effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
        yield from one_of(f"{where}.effect", toleration.get("effect") or None, *effects)


def _container(one: Json, at: str, volumes: set[str]) -> Causes:
    if not one.get("image"):
        yield required(f"{at}.image")
    if len(one["name"]) > 63 or not LABEL.match(one["name"]):
        yield invalid(f"{at}.name", one["name"], LABEL_RULE)
    policy = one.get("imagePullPolicy")
    yield from one_of(f"{at}.imagePullPolicy", policy, "Always", "IfNotPresent", "Never")
    for index, mount in enumerate(one.get("volumeMounts", ())):
        if mount["name"] not in volumes:
            message = f'Not found: "{mount["name"]}"'
            yield Cause("FieldValueNotFound", message, f"{at}.volumeMounts[{index}].name")
    for index, port in enumerate(one.get("ports", ())):
        yield from port_rules(f"{at}.ports[{index}].containerPort", port["containerPort"])
        if len(port.get("name", "")) > 15:
            yield invalid(f"{at}.ports[{index}].name", port["name"], "must be no more than 15 characters")
    for probe in ("livenessProbe", "startupProbe"):
        if one.get(probe, {}).get("successThreshold", 1) != 1:
            yield invalid(f"{at}.{probe}.successThreshold", one[probe]["successThreshold"], "must be 1")
    yield from amount_rules(one.get("resources") or {}, f"{at}.resources")
    for index, variable in enumerate(one.get("env", ())):
        if "=" in variable["name"] or not variable["name"]:
            yield invalid(f"{at}.env[{index}].name", variable["name"], "must not contain '='")
        if variable.get("value") and variable.get("valueFrom"):
            why = "may not be specified when `value` is not empty"
            yield invalid(f"{at}.env[{index}].valueFrom", "", why)


def amount_rules(given: Json, at: str) -> Causes:
    amounts: dict[str, dict[str, Fraction]] = {"limits": {}, "requests": {}}
    for side, held in amounts.items():
        for name, text in (given.get(side) or {}).items():
            try:
                held[name] = quantity(text)
            except ValueError as error:
                yield invalid(f"{at}.{side}[{name}]", text, str(error))
    for name, amount in amounts["requests"].items():
        limit = amounts["limits"].get(name)
        whole = "/" in name and not name.startswith("kubernetes.io/")
        if limit is not None and amount > limit:
            shown = given["limits"][name]
            why = f"must be less than or equal to {name} limit of {shown}"
            yield invalid(f"{at}.requests", given["requests"][name], why)
        elif whole and limit != amount:
            why = f"must be equal to {name} limit" if limit is not None else "Limit must be set"
            yield invalid(f"{at}.requests", given["requests"][name], why)
    for name, amount in amounts["limits"].items():
        if "/" in name and amount.denominator != 1:
            yield invalid(f"{at}.limits[{name}]", given["limits"][name], "must be an integer")


def port_rules(field: str, number: object) -> Causes:
    if not isinstance(number, int) or not 1 <= number <= 65535:
        yield invalid(field, number, "must be between 1 and 65535, inclusive")
