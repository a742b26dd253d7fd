"""The published schemas that every object is held against, and what they say of lists and defaults.

Built-in kinds: the strict schemas of `kubernetes-validate`. Add-ons: their own definitions, in `crds/`. Both
are heavy, so they are read once in a process, and only when the first object of a kind comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jsonschema_rs
import yaml

from moorage_kubernetes.testing.resources import ADD_ONS, Resource
from moorage_kubernetes.testing.statuses import Cause, Json

VERSIONS = ("1.34", "1.35", "1.36")
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_GVK = "x-kubernetes-group-version-kind"
_ADDED = {resource for add_on in ("keda", "gateway_api", "envoy_gateway") for resource in ADD_ONS[add_on]}


class Schemas:
    """The schemas of one Kubernetes version."""

    def __init__(self, version: str) -> None:
        self._definitions = _definitions(version)
        self._version = version

    def root(self, resource: Resource) -> Json:
        """The schema of a whole object; empty for what has none (metrics)."""
        return _root(self._version, resource)

    def resolve(self, node: Json) -> Json:
        while "$ref" in node:
            node = self._definitions[node["$ref"].rpartition("/")[2]]
        return node

    def child(self, node: Json, name: str) -> Json | None:
        """The schema of a field or of a map's value; None where the field is not declared."""
        node = self.resolve(node)
        found = (node.get("properties") or {}).get(name)
        if found is None:
            more = node.get("additionalProperties")
            found = more if isinstance(more, dict) else None
        if found is None and (not node.get("properties") or node.get("x-kubernetes-preserve-unknown-fields")):
            found = {}
        return None if found is None else self.resolve(found)

    def item(self, node: Json) -> Json:
        return self.resolve(self.resolve(node).get("items") or {})

    def errors(self, resource: Resource, value: Json) -> list[Cause]:
        """What of the object its schema does not allow."""
        if not self.root(resource):
            return []
        found = _validator(self._version, resource).iter_errors(value)
        return [_cause(error) for error in found]

    def unknown_fields(self, resource: Resource, value: Json) -> list[tuple[str | int, ...]]:
        """The paths of fields that are not declared."""
        root = self.root(resource)
        return list(self._unknown(root, value, ())) if root else []

    def _unknown(
        self, node: Json, value: object, path: tuple[str | int, ...]
    ) -> Iterator[tuple[str | int, ...]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                child = self.child(node, name)
                if child is None:
                    yield (*path, name)
                else:
                    yield from self._unknown(child, inner, (*path, name))
        elif isinstance(value, list):
            item = self.item(node)
            for index, inner in enumerate(value):
                yield from self._unknown(item, inner, (*path, index))

    def fill(self, resource: Resource, value: Json) -> None:
        """Sets the defaults that an add-on's definition gives; those of built-in kinds are in `defaults`."""
        if resource in _ADDED:
            self._fill(self.root(resource), value)

    def _fill(self, node: Json, value: object) -> None:
        node = self.resolve(node)
        if isinstance(value, dict):
            for name, inner in (node.get("properties") or {}).items():
                if name not in value and "default" in inner:
                    value[name] = json.loads(json.dumps(inner["default"]))
                if name in value and name != "metadata":
                    self._fill(inner, value[name])
        elif isinstance(value, list):
            for inner in value:
                self._fill(self.item(node), inner)


def dotted(path: Sequence[str | int]) -> str:
    """spec.containers[0].name"""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def without(value: Json, path: Sequence[str | int]) -> None:
    """Takes the field at `path` out of the object."""
    holder: Any = value  # Any: JSON on the way down
    for step in path[:-1]:
        holder = holder[step]
    del holder[path[-1]]


def _cause(error: jsonschema_rs.ValidationError) -> Cause:
    path = dotted(list(error.instance_path)) or "<root>"
    missing = getattr(error.kind, "property", None)
    if missing is not None:
        return Cause("FieldValueRequired", "Required value", f"{path}.{missing}".removeprefix("<root>."))
    return Cause("FieldValueInvalid", f"Invalid value: {error.message}", path)


@cache
def _definitions(version: str) -> Json:
    if version not in VERSIONS:
        raise ValueError(f"version {version}: there are schemas for {', '.join(VERSIONS)}")
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    text = (folder / "_definitions.json").read_text("utf-8")
    found: Json = json.loads(text.replace("/api/_definitions.json#/$defs/", "#/$defs/"))["$defs"]
    return found


@cache
def _root(version: str, resource: Resource) -> Json:
    if resource in _ADDED:
        return _custom(version, resource)
    wanted = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    for node in _definitions(version).values():
        if wanted in node.get(_GVK, ()):
            found: Json = node
            return found
    return {}


@cache
def _validator(version: str, resource: Resource) -> jsonschema_rs.Validator:
    root = _root(version, resource)
    return jsonschema_rs.validator_for({**root, "$defs": _definitions(version)})


def _custom(version: str, resource: Resource) -> Json:
    name = f"{resource.group}_{resource.plural}.crd.yaml"
    file = resources.files("moorage_kubernetes.testing") / "crds" / name
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load(file.read_text("utf-8"), Loader=loader)  # noqa: S506 - both are safe loaders
    found = next(v for v in definition["spec"]["versions"] if v["name"] == resource.version)
    schema: Json = _closed(found["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"$ref": f"#/$defs/{_META}"}
    schema.setdefault("required", []).append("metadata")
    return schema


def _closed(node: Any) -> Any:  # Any: a JSON schema of any shape
    """A structural schema as JSON schema: what is not declared is not allowed."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _closed(item) for key, item in node.items()}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        kept = made.get("x-kubernetes-preserve-unknown-fields")
        if "additionalProperties" not in made and not kept:
            made["additionalProperties"] = False
    if made.pop("nullable", False) and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return made
