"""Whether a Deployment is still what was applied. Pure.

What was applied is remembered on the Deployment itself, as short digests of the parts that decide what runs.
Fields that a server fills in, or writes in another form, are not among them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any  # Kubernetes objects as they are read

from moorage_kubernetes import marks

Object = dict[str, Any]


def plan_mark(deployment: Object, replicas: int | None) -> str:
    """To be remembered; `replicas` None: an autoscaler decides."""
    return json.dumps({**_parts(deployment), "replicas": replicas}, sort_keys=True)


def drift(deployment: Object) -> str | None:
    """What differs from the mark, in words; None if nothing does, or nothing is remembered."""
    annotations = deployment["metadata"].get("annotations") or {}
    wanted = _remembered(annotations)
    if wanted is None:
        return None
    told = [f"its {part} was changed" for part, now in _parts(deployment).items() if wanted.get(part) != now]
    asked, there = wanted.get("replicas"), deployment["spec"].get("replicas", 1)
    if asked is not None and asked != there and marks.STOPPED not in annotations:
        told.append(f"its replicas were {asked} and are {there}")
    return "; ".join(told) or None


def remarked(deployment: Object) -> str | None:
    """The mark as it should be where the cluster's admission has changed what was applied; None where it is
    right. Without this, every look would find a drift that no apply could mend."""
    annotations = deployment["metadata"].get("annotations") or {}
    wanted = _remembered(annotations)
    if wanted is None:
        return None
    right = plan_mark(deployment, wanted.get("replicas"))
    return None if right == annotations[marks.PLAN] else right


def _remembered(annotations: Mapping[str, str]) -> dict[str, Any] | None:
    try:
        wanted = json.loads(annotations.get(marks.PLAN, ""))
    except ValueError:
        return None
    return wanted if isinstance(wanted, dict) else None


def _parts(deployment: Object) -> dict[str, str]:
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    env = [
        [e["name"], e.get("value") or None, ((e.get("valueFrom") or {}).get("secretKeyRef") or {}).get("key")]
        for e in container.get("env") or ()
    ]
    return {
        "image": _digest(container.get("image")),
        "command": _digest([container.get("command"), container.get("args"), container.get("workingDir")]),
        "environment": _digest(env),
    }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
