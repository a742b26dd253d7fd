"""The verbs on one resource: what a query, a content type and a body ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from moorage_kubernetes.testing import scale
from moorage_kubernetes.testing.deletion import DeleteOptions, delete
from moorage_kubernetes.testing.listing import number, selected
from moorage_kubernetes.testing.objects import Write
from moorage_kubernetes.testing.patches import json_patch, merge_patch, strategic_merge
from moorage_kubernetes.testing.resources import BUILT_IN
from moorage_kubernetes.testing.statuses import (
    ApiError,
    Cause,
    Json,
    bad_request,
    invalid,
    method_not_allowed,
    unsupported_media_type,
)
from moorage_kubernetes.testing.targets import Target
from moorage_kubernetes.testing.world import World

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
Body = Any  # Any: JSON of a client, of any shape until it is held against a schema


class Verbs:
    def __init__(self, world: World) -> None:
        self._world = world
        self._objects = world.objects

    def get(self, wanted: Target) -> Json:
        value = self._objects.get(wanted.resource, wanted.namespace, wanted.name)
        return scale.shown(value) if wanted.subresource == "scale" else value

    def post(self, wanted: Target, body: Body, request: web.Request) -> tuple[Json, list[str]]:
        how = _write(request)
        if wanted.name or (wanted.resource.namespaced and not wanted.namespace):
            raise method_not_allowed()
        made = self._objects.create(wanted.resource, wanted.namespace, body, how)
        return made, how.warnings

    def put(self, wanted: Target, body: Body, request: web.Request) -> tuple[Json, list[str]]:
        how = _write(request, wanted.subresource)
        if wanted.subresource == "scale":
            return self._scale(wanted, body, how), how.warnings
        made = self._objects.update(wanted.resource, wanted.namespace, wanted.name, body, how)
        return made, how.warnings

    def patch(self, wanted: Target, body: Body, request: web.Request) -> tuple[Json, bool, list[str]]:
        how = _write(request, wanted.subresource)
        kinds = [JSON_PATCH, MERGE, APPLY]
        if wanted.resource in BUILT_IN:
            kinds.append(STRATEGIC)
        if request.content_type not in kinds:
            raise unsupported_media_type(kinds)
        change = self._change(wanted, body, request.content_type)
        if wanted.subresource == "scale":
            held = scale.shown(self.get(Target(wanted.resource, wanted.namespace, wanted.name)))
            return self._scale(wanted, change(held), how), False, how.warnings
        if request.content_type == APPLY:
            self._check_apply(request)
            made, new = self._objects.apply(wanted.resource, wanted.namespace, wanted.name, body, how)
            return made, new, how.warnings
        made = self._objects.patch(wanted.resource, wanted.namespace, wanted.name, change, how)
        return made, False, how.warnings

    def delete(self, wanted: Target, body: Body, request: web.Request) -> Json:
        options = _options(body, request)
        if wanted.name:
            value = self._objects.get(wanted.resource, wanted.namespace, wanted.name)
            return delete(self._objects, wanted.resource, value, options)
        found = selected(
            wanted.resource, request.query, self._world.store.of(wanted.resource, wanted.namespace or None)
        )
        for value in found:
            delete(self._objects, wanted.resource, value, options)
        return {
            "kind": f"{wanted.resource.kind}List",
            "apiVersion": wanted.resource.api_version,
            "metadata": {"resourceVersion": str(self._world.store.revision)},
            "items": found,
        }

    def _change(self, wanted: Target, body: Body, kind: str) -> Callable[[Json], Json]:
        if kind == JSON_PATCH:
            return lambda value: json_patch(value, body)
        if not isinstance(body, dict):
            raise bad_request("the patch is no object")
        if kind == STRATEGIC:
            schemas = self._objects.schemas
            root = schemas.root(wanted.resource)
            return lambda value: _object(strategic_merge(schemas, root, value, body))
        return lambda value: _object(merge_patch(value, body))

    def _scale(self, wanted: Target, body: Body, how: Write) -> Json:
        replicas = ((body or {}).get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or replicas < 0:
            cause = Cause(
                "FieldValueInvalid", f"Invalid value: {replicas}: must not be negative", "spec.replicas"
            )
            raise invalid("Scale", "autoscaling", wanted.name, [cause])
        asked = (body.get("metadata") or {}).get("resourceVersion")

        def change(value: Json) -> Json:
            value["spec"]["replicas"] = replicas
            value["metadata"]["resourceVersion"] = asked or value["metadata"]["resourceVersion"]
            return value

        made = self._objects.patch(wanted.resource, wanted.namespace, wanted.name, change, how)
        return scale.shown(made)

    def _check_apply(self, request: web.Request) -> None:
        if not request.query.get("fieldManager"):
            cause = Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")
            raise invalid("PatchOptions", "meta.k8s.io", "", [cause])


def _object(value: Any) -> Json:
    made: Json = value
    return made


def _write(request: web.Request, subresource: str = "") -> Write:
    query = request.query
    agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise ApiError(422, "Invalid", f'fieldValidation: Unsupported value: "{validation}"')
    return Write(
        manager=query.get("fieldManager") or agent,
        validation=validation,
        dry_run=query.get("dryRun") == "All",
        force=query.get("force", "").lower() in ("true", "1"),
        subresource=subresource,
    )


def _options(body: Body, request: web.Request) -> DeleteOptions:
    given = body if isinstance(body, dict) else {}
    wanted = given.get("preconditions") or {}
    grace = given.get("gracePeriodSeconds", number(request.query, "gracePeriodSeconds"))
    policy = given.get("propagationPolicy") or request.query.get("propagationPolicy") or "Background"
    return DeleteOptions(
        policy=policy,
        grace=grace,
        uid=wanted.get("uid"),
        revision=wanted.get("resourceVersion"),
        dry_run=request.query.get("dryRun") == "All" or given.get("dryRun") == ["All"],
    )
