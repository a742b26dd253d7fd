"""Lists: selected, in pages, under one revision."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.selectors import fields, labels
from moorage_kubernetes.testing.statuses import Json, bad_request, expired_continue
from moorage_kubernetes.testing.store import Store, key_of


def selected(resource: Resource, query: Mapping[str, str], values: list[Json]) -> list[Json]:
    """Raises ApiError 400 for a selector that is none."""
    tests = []
    if query.get("labelSelector"):
        tests.append(labels(query["labelSelector"]))
    if query.get("fieldSelector"):
        tests.append(fields(query["fieldSelector"], resource.kind))
    return [value for value in values if all(test(value) for test in tests)]


def listed(store: Store, resource: Resource, namespace: str, query: Mapping[str, str]) -> Json:
    """Raises ApiError 400, or 410 for a page of a list that is too old."""
    values = selected(resource, query, store.of(resource, namespace or None))
    metadata: Json = {"resourceVersion": str(store.revision)}
    if query.get("continue"):
        revision, after = _opened(query["continue"])
        if revision < store.compacted:
            raise expired_continue()
        metadata["resourceVersion"] = str(revision)
        values = [value for value in values if key_of(value) > after]
    limit = number(query, "limit") or 0
    if limit and len(values) > limit:
        last = [int(metadata["resourceVersion"]), *key_of(values[limit - 1])]
        metadata["continue"] = base64.urlsafe_b64encode(json.dumps(last).encode()).decode()
        metadata["remainingItemCount"] = len(values) - limit
        values = values[:limit]
    return {
        "kind": f"{resource.kind}List",
        "apiVersion": resource.api_version,
        "metadata": metadata,
        "items": values,
    }


def number(query: Mapping[str, str], name: str) -> int | None:
    """Raises ApiError 400 for what is no number."""
    text = query.get(name)
    if not text:
        return None
    if not text.isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _opened(token: str) -> tuple[int, tuple[str, str]]:
    try:
        revision, namespace, name = json.loads(base64.urlsafe_b64decode(token))
    except ValueError as error:
        raise bad_request("continue key is not valid") from error
    return revision, (namespace, name)
