"""The scale subresource: an object's replicas, without the rest of it."""

from __future__ import annotations

from moorage_kubernetes.testing.statuses import Json


def shown(value: Json) -> Json:
    metadata = value["metadata"]
    selector = value["spec"].get("selector", {}).get("matchLabels") or {}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            name: metadata[name]
            for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        },
        "spec": {"replicas": value["spec"].get("replicas", 0)},
        "status": {
            "replicas": value.get("status", {}).get("replicas", 0),
            "selector": ",".join(f"{key}={one}" for key, one in sorted(selector.items())),
        },
    }
