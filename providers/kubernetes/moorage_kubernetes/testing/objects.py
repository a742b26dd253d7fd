"""Writing: what happens to an object between a request and the store, whoever asks.

Clients and controllers both come through here; only clients' writes are held against schemas and admission.
"""

from __future__ import annotations

import base64
import random
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from moorage_kubernetes.testing import defaults
from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.admission import Admission
from moorage_kubernetes.testing.apply import Held, Manager, applied, created, updated, write_held
from moorage_kubernetes.testing.clock import now
from moorage_kubernetes.testing.resources import BUILT_IN, Resource
from moorage_kubernetes.testing.rules import broken
from moorage_kubernetes.testing.schemas import Schemas, dotted, without
from moorage_kubernetes.testing.statuses import (
    ApiError,
    Json,
    already_exists,
    bad_request,
    invalid,
    not_found,
    precondition,
    stale,
)
from moorage_kubernetes.testing.store import Store, clone

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_WITHOUT_GENERATION = frozenset({known.NAMESPACES, known.NODES, known.SERVICES, known.HPAS, known.CLAIMS})


@dataclass(slots=True)
class Write:
    """How a request wants to write. `validation` is Strict, Warn or Ignore."""

    manager: str = "unknown"
    validation: str = "Warn"
    dry_run: bool = False
    force: bool = False
    subresource: str = ""
    warnings: list[str] = field(default_factory=list)


class Objects:
    def __init__(self, store: Store, schemas: Schemas, admission: Admission) -> None:
        self.store = store
        self.schemas = schemas
        self._admission = admission
        self._addresses = 0

    def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """Raises ApiError 404."""
        found = self.store.get(resource, namespace, name)
        if found is None:
            raise not_found(resource.plural, resource.group, name)
        return found

    def create(self, resource: Resource, namespace: str, body: Json, how: Write) -> Json:
        """Raises ApiError 400, 403, 404, 409 or 422."""
        value = self._read(resource, namespace, body, how)
        held = created(self.schemas, resource, value, Manager(how.manager, "Update"))
        return self._born(resource, value, held, how)

    def update(self, resource: Resource, namespace: str, name: str, body: Json, how: Write) -> Json:
        """Replaces an object. Raises ApiError 400, 404, 409 or 422."""
        before = self.get(resource, namespace, name)
        value = self._read(resource, namespace, body, how)
        if value["metadata"]["name"] != name:
            raise bad_request(
                f"the name of the object ({value['metadata']['name']}) does not match the name on the URL "
                f"({name})"
            )
        return self._changed(resource, before, value, how)

    def patch(
        self, resource: Resource, namespace: str, name: str, change: Callable[[Json], Json], how: Write
    ) -> Json:
        """Raises ApiError 400, 404, 409 or 422."""
        before = self.get(resource, namespace, name)
        value = self._read(resource, namespace, change(clone(before)), how)
        return self._changed(resource, before, value, how)

    def apply(
        self, resource: Resource, namespace: str, name: str, config: Json, how: Write
    ) -> tuple[Json, bool]:
        """Server-side apply: the object, and whether it is new. Raises ApiError 400, 404, 409, 422 or 500."""
        self._check_apply(resource, namespace, name, config)
        before = self.store.get(resource, namespace, name)
        manager = Manager(how.manager, "Apply", how.subresource)
        config = _decoded(resource, config)
        config["metadata"].setdefault("name", name)
        if before is None:
            if how.subresource:
                raise not_found(resource.plural, resource.group, name)
            value = self._read(resource, namespace, config, how)
            held = created(self.schemas, resource, value, manager)
            return self._born(resource, value, held, how), True
        _same_object(resource, before, config["metadata"])
        made, held = applied(self.schemas, resource, before, config, manager, force=how.force)
        return self._changed(resource, before, made, how, held), False

    def remove_if_done(self, resource: Resource, value: Json) -> bool:
        """Removes what is being deleted and has no finalizer left."""
        metadata = value["metadata"]
        if "deletionTimestamp" not in metadata or metadata.get("finalizers"):
            return False
        if resource == known.PODS and metadata.get("deletionGracePeriodSeconds"):
            return False
        if resource == known.NAMESPACES and value.get("spec", {}).get("finalizers"):
            return False
        self.store.remove(resource, value)
        return True

    def _read(self, resource: Resource, namespace: str, body: Json, how: Write) -> Json:
        """The body as an object of this resource. Raises ApiError 400."""
        if not isinstance(body, dict):
            raise bad_request("the body is no object")
        for name, wanted in (("apiVersion", resource.api_version), ("kind", resource.kind)):
            found = body.setdefault(name, wanted)
            if found != wanted:
                told = f"{body.get('apiVersion')}, Kind={body.get('kind')}"
                raise bad_request(
                    f"{told} in the body does not match {resource.api_version}, Kind={resource.kind}"
                )
        value = _decoded(resource, body)
        metadata = value.setdefault("metadata", {})
        if resource.namespaced and metadata.setdefault("namespace", namespace) != namespace:
            raise bad_request(
                f"the namespace of the provided object does not match the namespace sent on the request: "
                f"{metadata['namespace']} != {namespace}"
            )
        unknown = self.schemas.unknown_fields(resource, value)
        if unknown and how.validation == "Strict":
            told = ", ".join(f'unknown field "{dotted(path)}"' for path in unknown)
            raise bad_request(f"strict decoding error: {told}")
        for path in reversed(unknown):
            without(value, path)
            if how.validation == "Warn":
                how.warnings.append(f'unknown field "{dotted(path)}"')
        return value

    def _check_apply(self, resource: Resource, namespace: str, name: str, config: Json) -> None:
        if not isinstance(config, dict) or "apiVersion" not in config or "kind" not in config:
            raise bad_request("apiVersion and kind must be set in an apply patch")
        if (config["apiVersion"], config["kind"]) != (resource.api_version, resource.kind):
            raise bad_request(f"the patch is of {config['apiVersion']}, Kind={config['kind']}")
        metadata = config.setdefault("metadata", {})
        if metadata.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        if metadata.get("name", name) != name:
            raise bad_request(f"the name of the object ({metadata['name']}) does not match {name}")
        unknown = self.schemas.unknown_fields(resource, config)
        if unknown:  # a plain error to the server, so it answers 500 without a reason
            where = f"{namespace}/{name}; {resource.api_version}, Kind={resource.kind}"
            told = f".{dotted(unknown[0])}: field not declared in schema"
            raise ApiError(500, "", f"failed to create typed patch object ({where}): {told}")

    def _born(self, resource: Resource, value: Json, held: Held, how: Write) -> Json:
        metadata = value["metadata"]
        if "name" not in metadata and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + suffix()
        if not metadata.get("name"):
            message = "name or generateName is required"
            raise ApiError(
                422, "Invalid", f'{resource.kind} "" is invalid: metadata.name: Required value: {message}'
            )
        name = metadata["name"]
        namespace = metadata.get("namespace", "")
        for own in ("uid", "resourceVersion", "deletionTimestamp", "managedFields"):
            metadata.pop(own, None)
        if self.store.get(resource, namespace, name) is not None:
            raise already_exists(resource.plural, resource.group, name)
        if "status" in resource.subresources:
            value.pop("status", None)
        self._filled(resource, value)
        self._hold(resource, value, None)
        self._admission.create(resource, value)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = now()
        if "status" in resource.subresources and resource not in _WITHOUT_GENERATION:
            metadata["generation"] = 1
        self._first_state(resource, value)
        write_held(value, held, resource.api_version, now())
        if how.dry_run:
            return value
        return self.store.put(resource, value)

    def _changed(
        self, resource: Resource, before: Json, value: Json, how: Write, held: Held | None = None
    ) -> Json:
        asked = value["metadata"]
        _same_object(resource, before, asked)
        if how.subresource == "status":
            status = value.get("status")
            value = clone(before)
            if status is not None:
                value["status"] = status
        elif "status" in resource.subresources:
            value["status"] = before.get("status", {})
            if "status" not in before:
                del value["status"]
        metadata = value["metadata"]
        for own in (
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ):
            if own in before["metadata"]:
                metadata[own] = before["metadata"][own]
        metadata["managedFields"] = before["metadata"].get("managedFields", [])
        if resource == known.SERVICES:
            value["spec"].setdefault("clusterIP", before["spec"].get("clusterIP"))
        self._filled(resource, value)
        self._hold(resource, value, before)
        self._admission.write(resource, value)
        if "generation" in before["metadata"] and value.get("spec") != before.get("spec"):
            metadata["generation"] += 1
        if held is None:
            manager = Manager(how.manager, "Update", how.subresource)
            held = updated(self.schemas, resource, before, value, manager)
        write_held(value, held, resource.api_version, now())
        metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
        if value == before or how.dry_run:
            return value
        if self.remove_if_done(resource, value):
            return value
        return self.store.put(resource, value)

    def _filled(self, resource: Resource, value: Json) -> None:
        """Sets defaults, once the shape allows it. Raises ApiError 422."""
        metadata = value["metadata"]
        causes = self.schemas.errors(resource, value)
        if causes:
            raise invalid(resource.kind, resource.group, metadata["name"], causes)
        if resource in BUILT_IN:
            defaults.fill(resource, value)
        else:
            self.schemas.fill(resource, value)

    def _hold(self, resource: Resource, value: Json, before: Json | None) -> None:
        causes = broken(resource, value, before)
        if causes:
            raise invalid(resource.kind, resource.group, value["metadata"]["name"], causes)

    def _first_state(self, resource: Resource, value: Json) -> None:
        metadata = value["metadata"]
        match resource:
            case known.NAMESPACES:
                metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]
                value["spec"] = {"finalizers": ["kubernetes"]}
                value["status"] = {"phase": "Active"}
            case known.PODS:
                value["status"] = {"phase": "Pending", "qosClass": "Burstable"}
            case known.CLAIMS:
                value["status"] = {"phase": "Pending"}
                metadata["finalizers"] = [*metadata.get("finalizers", ()), "kubernetes.io/pvc-protection"]
                self._default_class(value)
            case known.SERVICES:
                value["status"] = {"loadBalancer": {}}
                if value["spec"]["type"] != "ExternalName" and "clusterIP" not in value["spec"]:
                    self._addresses += 1
                    high, low = divmod(self._addresses, 250)
                    value["spec"]["clusterIP"] = f"10.96.{high}.{low + 1}"
                    value["spec"]["clusterIPs"] = [value["spec"]["clusterIP"]]
            case known.DEPLOYMENTS | known.REPLICA_SETS:
                value["status"] = {} if resource == known.DEPLOYMENTS else {"replicas": 0}

    def _default_class(self, claim: Json) -> None:
        if "storageClassName" in claim["spec"]:
            return
        for one in self.store.of(known.STORAGE_CLASSES):
            marks = one["metadata"].get("annotations") or {}
            if marks.get("storageclass.kubernetes.io/is-default-class") == "true":
                claim["spec"]["storageClassName"] = one["metadata"]["name"]


def suffix(length: int = 5) -> str:
    return "".join(random.choices(_LETTERS if length == 5 else string.hexdigits[:16], k=length))


def _same_object(resource: Resource, before: Json, asked: Json) -> None:
    name = before["metadata"]["name"]
    if asked.get("uid", before["metadata"]["uid"]) != before["metadata"]["uid"]:
        told = (asked["uid"], before["metadata"]["uid"])
        raise precondition(resource.plural, resource.group, name, "UID", *told)
    held = before["metadata"]["resourceVersion"]
    if asked.get("resourceVersion") not in (None, "", held):
        raise stale(resource.plural, resource.group, name)


def _decoded(resource: Resource, body: Json) -> Json:
    """A copy without nulls; a secret's stringData is in its data."""
    value = _without_nulls(body)
    if resource == known.SECRETS and "stringData" in value:
        plain = value.pop("stringData")
        if isinstance(plain, dict):
            coded = {name: base64.b64encode(str(text).encode()).decode() for name, text in plain.items()}
            value["data"] = {**value.get("data", {}), **coded}
    return value


def _without_nulls(value: Json) -> Json:
    made: Json = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            made[name] = _without_nulls(inner)
        elif isinstance(inner, list):
            made[name] = [_without_nulls(one) if isinstance(one, dict) else one for one in inner]
        elif inner is not None:
            made[name] = inner
    return made
