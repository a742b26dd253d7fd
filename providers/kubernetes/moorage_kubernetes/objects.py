"""All objects of an endpoint, out of a plan. Pure, and deterministic: the same plan gives the same objects,
so that to apply them again changes nothing.

Order matters to who may die in between. The Service is made first and removed last: as long as anything of an
endpoint is left, something is left that a list finds without reading Secrets.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any  # Kubernetes objects as they are sent

from moorage.domain.model import HubModel
from moorage.domain.workload import Volume, Workload
from moorage.errors import FieldError, Rejected
from moorage.ports.outside import RegistryAccess
from moorage.ports.provider import RevisionPlan
from moorage_kubernetes import marks
from moorage_kubernetes.autoscaling import may_sleep, scaling_objects
from moorage_kubernetes.drift import plan_mark
from moorage_kubernetes.environment import PORT, Environment, environment_of, front_environment, http_port
from moorage_kubernetes.pods import Names, front_pod, image_of, replica_pod
from moorage_kubernetes.routes import routes
from moorage_kubernetes.settings import KubernetesSettings
from moorage_kubernetes.tools import ClusterTools
from moorage_kubernetes.volumes import held_by_one

Object = dict[str, Any]

PROGRESS_BEYOND_START = 600  # seconds for a node and an image, before a container has its time to start
REVISIONS_KEPT = 2


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to exist. `replicas` is how many there are where no autoscaler decides (`autoscaled`), else how
    many it begins with."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    service: Object
    secrets: tuple[Object, ...]
    deployments: tuple[Object, ...]  # the replicas' first
    budgets: tuple[Object, ...]
    extras: tuple[Object, ...]  # of optional kinds
    volumes: tuple[Volume, ...]
    replicas: int
    max_replicas: int
    autoscaled: bool


def goal_of(
    plan: RevisionPlan,
    name: str,
    namespace: str,
    settings: KubernetesSettings,
    tools: ClusterTools,
    gateway: str = "",
) -> Goal:
    """Raises Rejected with the fields at fault."""
    workload = plan.workload or Workload()
    labels = marks.labels(settings.installation, name, plan.deployment_id)
    queued = workload.queued is not None
    if queued and not isinstance(plan.source, HubModel):
        message = "only a model that our worker serves can take its requests from a queue"
        raise Rejected(message, fields=(FieldError("workload.queued", "models_only", message),))
    scaling = scaling_objects(plan, name, namespace, labels, tools)
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    environment = environment_of(plan, name, settings, tools)
    secrets = [_secret(metadata, environment.secret)]
    registry = None
    if plan.registry is not None:
        registry = marks.registry_secret(name)
        secrets.append(_registry_secret({**metadata, "name": registry}, plan.registry))
    service = _service(metadata, plan, role=marks.FRONT if queued else marks.REPLICA)
    port = service["spec"]["ports"][0]["port"]
    way = [] if queued else routes(gateway, plan.deployment_id, name, port, metadata, tools)
    extras = (*scaling, *way)
    made = _Made(plan, settings, metadata, Names(name, registry, _match(name, marks.REPLICA)), environment)
    deployments = [_replicas(made, scaling, extras)]
    if queued:
        deployments.append(_front(made, front_environment(name, tools)))
    return Goal(
        name=name,
        namespace=namespace,
        labels=labels,
        service=service,
        secrets=tuple(secrets),
        deployments=tuple(deployments),
        budgets=(_budget(metadata),),
        extras=extras,
        volumes=workload.volumes,
        replicas=plan.replicas,
        max_replicas=max(plan.replicas, plan.max_replicas),
        autoscaled=bool(scaling),
    )


def owned_by(object_: Object, deployment: Object) -> Object:
    """Goes when the Deployment goes."""
    metadata = deployment["metadata"]
    owner = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {**object_, "metadata": {**object_["metadata"], "ownerReferences": [owner]}}


# -- parts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Made:
    plan: RevisionPlan
    settings: KubernetesSettings
    metadata: Object
    names: Names
    environment: Environment


def _replicas(made: _Made, scaling: list[Object], extras: tuple[Object, ...]) -> Object:
    plan, metadata = made.plan, made.metadata
    workload = plan.workload or Workload()
    pod = replica_pod(plan, made.settings, made.environment, made.names)
    annotations = {
        marks.EXTRAS: ",".join(sorted({e["kind"] for e in extras})),
        marks.FRONTED: str(workload.queued is not None).lower(),
        marks.MAY_SLEEP: str(any(e["kind"] == "ScaledObject" and may_sleep(e) for e in scaling)).lower(),
    }
    delay = workload.health.initial_delay if workload.health is not None else 0
    strategy: Object = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    deployment = _deployment(
        {**metadata, "annotations": annotations},
        marks.REPLICA,
        pod,
        _digest(made.environment.secret),
        {"type": "Recreate"} if held_by_one(workload.volumes) else strategy,
        math.ceil(made.settings.start_window) + delay + PROGRESS_BEYOND_START,
    )
    annotations[marks.PLAN] = plan_mark(deployment, None if scaling else plan.replicas)
    return deployment


def _front(made: _Made, environment: Environment) -> Object:
    name = made.metadata["name"]
    metadata = {**made.metadata, "name": marks.front_name(name)}
    names = Names(made.names.secret, made.names.registry, _match(name, marks.FRONT))
    pod = front_pod(image_of(made.plan, made.settings), environment, names)
    strategy: Object = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    digest = _digest(environment.secret)
    return _deployment(metadata, marks.FRONT, pod, digest, strategy, PROGRESS_BEYOND_START)


def _deployment(
    metadata: Object, role: str, pod: Object, digest: str, strategy: Object, deadline: int
) -> Object:
    """Without `replicas`: that field is an autoscaler's, or is set on its own (see `applying`)."""
    match = _match(metadata["labels"][marks.ENDPOINT], role)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "revisionHistoryLimit": REVISIONS_KEPT,
            "progressDeadlineSeconds": deadline,
            "strategy": strategy,
            "selector": {"matchLabels": match},
            "template": {
                "metadata": {
                    "labels": {**metadata["labels"], **match},
                    "annotations": {marks.SECRET_DIGEST: digest},
                },
                "spec": pod,
            },
        },
    }


def _match(name: str, role: str) -> dict[str, str]:
    return {marks.ENDPOINT: name, marks.ROLE: role}


def _service(metadata: Object, plan: RevisionPlan, *, role: str) -> Object:
    port = PORT if role == marks.FRONT else http_port(plan)
    ports: list[Object] = [{"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}]
    asked = plan.workload.ports if plan.workload is not None and role == marks.REPLICA else None
    if asked is not None and asked.grpc is not None:
        grpc: Object = {"name": "grpc", "port": asked.grpc, "targetPort": "grpc", "protocol": "TCP"}
        ports.append({**grpc, "appProtocol": "kubernetes.io/h2c"})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"type": "ClusterIP", "selector": _match(metadata["name"], role), "ports": ports},
    }


def _budget(metadata: Object) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": _match(metadata["name"], marks.REPLICA)},
        },
    }


def _secret(metadata: Object, values: Mapping[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "data": {name: _coded(value) for name, value in sorted(values.items())},
    }


def _registry_secret(metadata: Object, access: RegistryAccess) -> Object:
    login = {"username": access.username, "password": access.password}
    login["auth"] = _coded(f"{access.username}:{access.password}")
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": _coded(json.dumps({"auths": {access.server: login}}))},
    }


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _digest(values: Mapping[str, str]) -> str:
    """Of all secret values together, and short: it tells of a change, and nobody a value."""
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()[:12]
