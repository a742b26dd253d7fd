"""Deployments become replica sets and pods, and roll over as their strategy says."""

from __future__ import annotations

from moorage_kubernetes.testing import StandInCluster
from moorage_kubernetes.testing.controllers.rollout import Set, bounds, recreating, rolling

from .asking import Api, Json, deployment, ready


async def test_pods_come_and_serve(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment(replicas=2))
    found = await ready(cluster, count=2)
    conditions = {one["type"]: one for one in found["status"]["conditions"]}
    assert conditions["Available"]["reason"] == "MinimumReplicasAvailable"
    assert conditions["Progressing"]["reason"] == "NewReplicaSetAvailable"
    assert {pod["status"]["phase"] for pod in cluster.objects("pods")} == {"Running"}
    [held] = cluster.objects("replicasets")
    assert held["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]


async def test_scaling_through_the_subresource(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment(replicas=1))
    await ready(cluster)
    await api.apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 3}})
    await ready(cluster, count=3)
    scale = await api.apps.read_namespaced_deployment_scale("web", "default")
    assert (scale.spec.replicas, scale.status.replicas) == (3, 3)
    scale.spec.replicas = 0
    await api.apps.replace_namespaced_deployment_scale("web", "default", scale)
    await ready(cluster, count=0)
    await cluster.came(lambda: not cluster.objects("pods"))


async def test_a_new_template_rolls_over_without_a_gap(cluster: StandInCluster, api: Api) -> None:
    body = deployment(replicas=3)
    body["spec"]["strategy"] = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    await api.apply(body)
    await ready(cluster, count=3)
    least, most = [3], [3]

    def watched() -> Json | None:
        status = cluster.object("deployments", "web", "default")["status"]
        least.append(status.get("availableReplicas", 0))
        most.append(sum(s["spec"]["replicas"] for s in cluster.objects("replicasets")))
        images = {pod["spec"]["containers"][0]["image"] for pod in cluster.objects("pods")}
        return status if images == {"acme/web:2"} and status.get("replicas") == 3 else None

    body["spec"]["template"]["spec"]["containers"][0]["image"] = "acme/web:2"
    await api.apply(body)
    await cluster.came(watched)
    await ready(cluster, count=3)
    assert (min(least), max(most)) == (3, 4)
    revision = cluster.object("deployments", "web", "default")["metadata"]["annotations"]
    assert revision["deployment.kubernetes.io/revision"] == "2"


async def test_an_old_template_takes_its_old_set_again(cluster: StandInCluster, api: Api) -> None:
    for image in ("acme/web:1", "acme/web:2", "acme/web:1"):
        await api.apply(deployment(image=image))
        await ready(cluster)
    assert len(cluster.objects("replicasets")) == 2
    [pod] = await cluster.came(lambda: [p for p in [cluster.objects("pods")] if len(p) == 1])
    assert pod[0]["spec"]["containers"][0]["image"] == "acme/web:1"


async def test_recreate_never_mixes(cluster: StandInCluster, api: Api) -> None:
    body = deployment(replicas=2)
    body["spec"]["strategy"] = {"type": "Recreate"}
    await api.apply(body)
    await ready(cluster, count=2)
    mixed: list[int] = []

    def seen() -> bool:
        images = {pod["spec"]["containers"][0]["image"] for pod in cluster.objects("pods")}
        mixed.append(len(images))
        return images == {"acme/web:2"}

    body["spec"]["template"]["spec"]["containers"][0]["image"] = "acme/web:2"
    await api.apply(body)
    await cluster.came(seen)
    assert max(mixed) == 1


async def test_min_ready_seconds_delay_availability(cluster: StandInCluster, api: Api) -> None:
    body = deployment()
    body["spec"]["minReadySeconds"] = 20
    await api.apply(body)
    held = await cluster.came(
        lambda: next(
            (
                s
                for s in [cluster.object("deployments", "web", "default")]
                if s["status"].get("readyReplicas")
            ),
            None,
        )
    )
    assert "availableReplicas" not in held["status"]
    await ready(cluster)


async def test_a_deleted_pod_is_replaced(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment())
    await ready(cluster)
    [pod] = cluster.objects("pods")
    await api.core.delete_namespaced_pod(pod["metadata"]["name"], "default")
    await cluster.came(
        lambda: pod["metadata"]["uid"] not in [p["metadata"]["uid"] for p in cluster.objects("pods")]
    )
    await ready(cluster)


def test_bounds_round_as_they_should() -> None:
    assert bounds("25%", "25%", 3) == (1, 0)
    assert bounds("0%", "0%", 3) == (0, 1)
    assert bounds(2, 1, 3) == (2, 1)


def test_the_steps_of_a_rollout() -> None:
    new, old = Set("new", 0, 0, 0), Set("old", 3, 3, 3)
    assert rolling(3, new, [old], 1, 0) == {"old": 3, "new": 1}
    assert rolling(3, Set("new", 1, 1, 1), [old], 1, 0) == {"old": 2, "new": 1}
    assert rolling(3, Set("new", 0, 0, 0), [Set("old", 3, 3, 0)], 0, 1)["old"] < 3
    assert recreating(3, new, [old]) == {"old": 0, "new": 0}
    assert recreating(3, new, [Set("old", 0, 0, 0)]) == {"old": 0, "new": 3}
