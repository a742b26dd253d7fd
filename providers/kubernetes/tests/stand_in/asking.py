"""What the tests of the stand-in send, and how."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from kubernetes_asyncio import client

from moorage_kubernetes.testing import StandInCluster

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
Json = dict[str, Any]  # Any: Kubernetes objects as JSON


class Api:
    """The typed clients over one connection."""

    def __init__(self, one: client.ApiClient) -> None:
        self.core = client.CoreV1Api(one)
        self.apps = client.AppsV1Api(one)
        self.custom = client.CustomObjectsApi(one)
        self.autoscaling = client.AutoscalingV2Api(one)
        self.policy = client.PolicyV1Api(one)
        self.storage = client.StorageV1Api(one)
        self.networking = client.NetworkingV1Api(one)
        self.authorization = client.AuthorizationV1Api(one)
        self.groups = client.ApisApi(one)
        self.version = client.VersionApi(one)

    async def apply(self, body: Json, manager: str = "moorage", *, force: bool = True) -> Any:
        return await self.apps.patch_namespaced_deployment(
            body["metadata"]["name"],
            "default",
            body,
            field_manager=manager,
            force=force,
            field_validation="Strict",
            _content_type=APPLY,
        )


def deployment(name: str = "web", *, replicas: int | None = 1, image: str = "acme/web:1", **pod: Any) -> Json:
    """`pod` goes into the pod's spec; `container` of it into the container."""
    container = {"name": "server", "image": image, "ports": [{"name": "http", "containerPort": 8000}]}
    container |= pod.pop("container", {})
    labels = {"app.kubernetes.io/name": name}
    spec: Json = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], **pod}},
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": spec,
    }


def service(name: str = "web") -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app.kubernetes.io/name": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def claim(name: str, mode: str = "ReadWriteOnce", kind: str | None = None) -> Json:
    spec: Json = {"accessModes": [mode], "resources": {"requests": {"storage": "10Gi"}}}
    if kind is not None:
        spec["storageClassName"] = kind
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def scaled_object(name: str = "web", **spec: Any) -> Json:
    trigger = {
        "type": "prometheus",
        "metadata": {"serverAddress": "http://p", "query": "q", "threshold": "1"},
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": name, "annotations": spec.pop("annotations", {})},
        "spec": {"scaleTargetRef": {"name": name}, "triggers": [trigger], **spec},
    }


async def ready(cluster: StandInCluster, name: str = "web", count: int = 1) -> Json:
    """The deployment, once so many of its pods are available and no other pod is left."""

    def look() -> Json | None:
        found = cluster.object("deployments", name, "default")
        status = found["status"]
        numbers = [status.get(key, 0) for key in ("updatedReplicas", "availableReplicas", "replicas")]
        current = status.get("observedGeneration") == found["metadata"]["generation"]
        return found if current and numbers == [count] * 3 else None

    return await cluster.came(look)


async def pod_where(cluster: StandInCluster, test: Callable[[Json], object]) -> Json:
    """The first pod of which it is true, once there is one."""
    return await cluster.came(lambda: next((pod for pod in cluster.objects("pods") if test(pod)), None))


def waiting(pod: Json) -> str:
    """Why its first container waits."""
    for one in pod["status"].get("containerStatuses", ()):
        return str(one["state"].get("waiting", {}).get("reason", ""))
    return ""


async def event(cluster: StandInCluster, reason: str) -> Json:
    """The first event of this reason, once it came."""
    return (await cluster.came(lambda: cluster.events(reason)))[0]


async def refused(asked: Awaitable[Any]) -> Json:
    """The Status that a call is refused with."""
    with pytest.raises(client.ApiException) as caught:
        await asked
    status: Json = json.loads(caught.value.body)
    assert status["kind"] == "Status"
    assert status["code"] == caught.value.status
    return status
