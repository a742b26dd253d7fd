"""Taking a queue out of RabbitMQ and Redis, before what knows their addresses is deleted. Pure.

The front does it, once the consumers are gone: its Deployment is told to run the worker's face that removes
the queue, and a pod of it that is ready has done so. Where that stands is on the cluster alone, so that any
process can go on where another one died. RabbitMQ may be gone for good; then the Deployment's own deadline
says so, and the rest is deleted all the same.
"""

from __future__ import annotations

import copy
from typing import Any  # Kubernetes objects as they are read and sent

Object = dict[str, Any]

DEADLINE_SECONDS = 120
_FACE, _REMOVAL = "MOORAGE_WORKER_FACE", "queue_removal"


def to_removal(front: Object) -> Object | None:
    """The change by which the front begins with it; None where it has. The front must be gone first: it
    would make its queue anew."""
    if _face(front) == _REMOVAL and front["spec"].get("replicas", 1) == 1:
        return None
    containers = copy.deepcopy(front["spec"]["template"]["spec"]["containers"])
    for entry in containers[0].get("env") or ():
        if entry["name"] == _FACE:
            entry["value"] = _REMOVAL
    return {
        "spec": {
            "replicas": 1,
            "progressDeadlineSeconds": DEADLINE_SECONDS,
            "strategy": {"type": "Recreate", "rollingUpdate": None},
            "template": {"spec": {"containers": containers}},
        }
    }


def is_over(front: Object) -> bool:
    """Whether nothing is left, or there is no hope that this changes."""
    status = front.get("status") or {}
    if status.get("observedGeneration", 0) < front["metadata"].get("generation", 0):
        return False
    if status.get("updatedReplicas", 0) == status.get("replicas", 0) == status.get("readyReplicas", 0) == 1:
        return True
    conditions = status.get("conditions") or ()
    return any(
        c["type"] == "Progressing" and c.get("reason") == "ProgressDeadlineExceeded" for c in conditions
    )


def _face(front: Object) -> str | None:
    env = front["spec"]["template"]["spec"]["containers"][0].get("env") or ()
    return next((entry.get("value") for entry in env if entry["name"] == _FACE), None)
