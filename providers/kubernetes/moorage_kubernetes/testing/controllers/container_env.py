"""The environment of a container, from what it says, secrets, config maps and the pod's own fields."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import Store

_REFERENCE = re.compile(r"\$\$|\$\(([^)]+)\)")


class ConfigError(Exception):
    """A secret or a config map that is missing, as the kubelet words it."""


def environment(store: Store, pod: Json, container: Json) -> dict[str, str]:
    """Raises ConfigError."""
    namespace = pod["metadata"]["namespace"]
    found: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        for name, resource in (("secretRef", known.SECRETS), ("configMapRef", known.CONFIG_MAPS)):
            if name in source:
                values = _values(store, resource, namespace, source[name])
                found |= {source.get("prefix", "") + key: value for key, value in values.items()}
    for one in container.get("env") or ():
        value = _value(store, pod, one)
        if value is not None:
            found[one["name"]] = expanded(value, found) if "valueFrom" not in one else value
    return found


def expanded(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` by its value; `$$` is one dollar."""

    def one(met: re.Match[str]) -> str:
        return "$" if met[0] == "$$" else env.get(met[1], met[0])

    return _REFERENCE.sub(one, text)


def _value(store: Store, pod: Json, one: Json) -> str | None:
    source = one.get("valueFrom")
    if source is None:
        return str(one.get("value", ""))
    for name, resource in (("secretKeyRef", known.SECRETS), ("configMapKeyRef", known.CONFIG_MAPS)):
        if name in source:
            asked = source[name]
            values = _values(store, resource, pod["metadata"]["namespace"], asked)
            if asked["key"] in values:
                return values[asked["key"]]
            if asked.get("optional"):
                return None
            where = f"{pod['metadata']['namespace']}/{asked['name']}"
            raise ConfigError(f"couldn't find key {asked['key']} in {resource.kind} {where}")
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    return ""


def _values(store: Store, resource: Resource, namespace: str, asked: Json) -> dict[str, str]:
    held = store.get(resource, namespace, asked["name"])
    if held is None:
        if asked.get("optional"):
            return {}
        raise ConfigError(f'{resource.kind.lower()} "{asked["name"]}" not found')
    data = held.get("data") or {}
    if resource == known.SECRETS:
        return {key: base64.b64decode(text).decode() for key, text in data.items()}
    return dict(data)


def _field(pod: Json, path: str) -> str:
    met = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if met is not None:
        return str((pod["metadata"].get(met[1]) or {}).get(met[2], ""))
    found: object = pod
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return str(found or "")
