"""The labels and annotations by which what we made is known again, and what we did to it.

A label says whose an object is, and is what lists and watches select by. An annotation on the Deployment
remembers what cannot be seen otherwise: what was applied, and that it was stopped or woken by us.
"""

from __future__ import annotations

from collections.abc import Mapping

MANAGED_BY = "app.kubernetes.io/managed-by"
NAME = "app.kubernetes.io/name"
INSTALLATION = "moorage.io/installation"
ENDPOINT = "moorage.io/endpoint"  # the external name
DEPLOYMENT = "moorage.io/deployment"
ROLE = "moorage.io/role"

MANAGER = "moorage"  # also the field manager of every write
REPLICA, FRONT = "replica", "front"

PLAN = "moorage.io/plan"  # what was applied, to tell whether somebody changed it
EXTRAS = "moorage.io/extras"  # the optional kinds that were applied beside it
STOPPED = "moorage.io/stopped"
MAY_SLEEP = "moorage.io/may-sleep"  # its autoscaler may let it down to no replica
FRONTED = "moorage.io/has-front"  # its requests come by a queue
WOKEN = "moorage.io/woken"
SECRET_DIGEST = "moorage.io/secret-digest"  # noqa: S105  # of a pod's template: new secrets make new pods

KEDA_ACTIVATION = "autoscaling.keda.sh/force-activation"


def labels(installation: str, name: str, deployment_id: str) -> dict[str, str]:
    """On every object of an endpoint."""
    return {
        MANAGED_BY: MANAGER,
        NAME: name,
        INSTALLATION: installation,
        ENDPOINT: name,
        DEPLOYMENT: deployment_id,
    }


def selector(installation: str, name: str | None = None) -> str:
    """Of everything that this installation made, or of one endpoint."""
    wanted = {MANAGED_BY: MANAGER, INSTALLATION: installation}
    if name is not None:
        wanted[ENDPOINT] = name
    return ",".join(f"{key}={value}" for key, value in wanted.items())


def is_ours(labels_: Mapping[str, str], installation: str) -> bool:
    return labels_.get(MANAGED_BY) == MANAGER and labels_.get(INSTALLATION) == installation


def front_name(name: str) -> str:
    return f"{name}-front"


def registry_secret(name: str) -> str:
    return f"{name}-registry"
