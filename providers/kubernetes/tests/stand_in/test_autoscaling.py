"""Autoscalers and scaled objects move replicas: between their bounds, to zero, and back."""

from __future__ import annotations

from typing import Any

from moorage_kubernetes.testing import StandInCluster

from .asking import MERGE, Api, Json, deployment, event, ready, scaled_object

KEDA = ("keda.sh", "v1alpha1", "default", "scaledobjects")


def conditions(value: Json) -> dict[str, str]:
    return {one["type"]: one["status"] for one in value.get("status", {}).get("conditions", ())}


def autoscaler(least: int = 1, most: int = 4) -> Json:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"scaleTargetRef": target, "minReplicas": least, "maxReplicas": most}
    return {"metadata": {"name": "web"}, "spec": spec}


async def scaled(cluster: StandInCluster, replicas: int) -> None:
    await cluster.came(
        lambda: cluster.object("deployments", "web", "default")["spec"]["replicas"] == replicas
    )


async def test_an_autoscaler_keeps_its_bounds(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment(replicas=None))
    made = await api.autoscaling.create_namespaced_horizontal_pod_autoscaler("default", autoscaler(2))
    assert made.spec.metrics[0].resource.target.average_utilization == 80  # a default of the server
    await scaled(cluster, 2)
    cluster.recommend("web", 9)
    await scaled(cluster, 4)
    await ready(cluster, count=4)
    found = await cluster.came(
        lambda: next((h for h in cluster.objects("hpa") if h["status"].get("currentReplicas") == 4), None)
    )
    assert conditions(found) == {"AbleToScale": "True", "ScalingActive": "True", "ScalingLimited": "True"}
    await event(cluster, "SuccessfulRescale")


async def test_an_autoscaler_without_a_target(cluster: StandInCluster, api: Api) -> None:
    await api.autoscaling.create_namespaced_horizontal_pod_autoscaler("default", autoscaler())
    await cluster.came(
        lambda: conditions(cluster.object("hpa", "web", "default")) == {"AbleToScale": "False"}
    )


async def make(api: Api, **spec: Any) -> None:
    await api.custom.create_namespaced_custom_object(*KEDA, scaled_object(**spec))


async def test_to_zero_and_back(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment(replicas=None))
    await make(api, minReplicaCount=0, maxReplicaCount=3, cooldownPeriod=10)
    await ready(cluster, count=0)
    cluster.set_active("web", active=True)
    await ready(cluster, count=1)
    found = await cluster.came(
        lambda: next(
            (s for s in cluster.objects("scaledobjects") if conditions(s).get("Active") == "True"), None
        )
    )
    assert found["status"]["hpaName"] == "keda-hpa-web"
    assert found["status"]["lastActiveTime"]
    assert cluster.object("hpa", "keda-hpa-web", "default")["spec"]["minReplicas"] == 1
    cluster.recommend("web", 3)
    await ready(cluster, count=3)
    cluster.recommend("web", 1)
    cluster.set_active("web", active=False)
    await ready(cluster, count=0)
    await event(cluster, "KEDAScaleTargetDeactivated")


async def test_a_floor_is_kept(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment(replicas=None))
    await make(api, minReplicaCount=2)
    await ready(cluster, count=2)


async def test_annotations(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment(replicas=None))
    forced = {"autoscaling.keda.sh/force-activation": "true"}
    await make(api, minReplicaCount=0, cooldownPeriod=1, annotations=forced)
    await ready(cluster, count=1)

    async def annotate(**marks: str | None) -> None:
        named = {f"autoscaling.keda.sh/{name.replace('_', '-')}": value for name, value in marks.items()}
        body = {"metadata": {"annotations": named}}
        await api.custom.patch_namespaced_custom_object(*KEDA, "web", body, _content_type=MERGE)

    await annotate(paused_replicas="0")
    await ready(cluster, count=0)
    found = await cluster.came(
        lambda: next((s for s in cluster.objects("so") if conditions(s).get("Paused") == "True"), None)
    )
    assert found["status"]["pausedReplicaCount"] == 0
    await annotate(paused_replicas=None)
    await ready(cluster, count=1)
    await annotate(force_activation=None)
    await ready(cluster, count=0)


async def test_a_scaled_object_without_a_target(cluster: StandInCluster, api: Api) -> None:
    await make(api)
    await cluster.came(lambda: conditions(cluster.object("so", "web", "default")) == {"Ready": "False"})


async def test_its_own_autoscaler_goes_with_it(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment(replicas=None))
    await make(api)
    await cluster.came(lambda: cluster.objects("hpa"))
    await api.custom.delete_namespaced_custom_object(*KEDA, "web")
    await cluster.came(lambda: not cluster.objects("hpa"))


async def test_a_route_and_its_gateway(cluster: StandInCluster, api: Api) -> None:
    group = "gateway.networking.k8s.io"

    def of(kind: str, name: str, spec: Json, **meta: str) -> Json:
        return {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}

    cluster.add(of("GatewayClass", "eg", {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"}))
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
    cluster.add(of("Gateway", "gw", {"gatewayClassName": "eg", "listeners": listeners}, namespace="default"))
    rules = [{"backendRefs": [{"name": "web", "port": 80}]}]
    route = of("HTTPRoute", "web", {"parentRefs": [{"name": "gw"}], "rules": rules}, namespace="default")
    cluster.add(route)

    def parent(reason: str) -> Json | None:
        parents = cluster.object("httproutes", "web", "default").get("status", {}).get("parents", ())
        return next((p for p in parents if reason in [one["reason"] for one in p["conditions"]]), None)

    await cluster.came(lambda: parent("BackendNotFound"))
    ports = [{"port": 80}]
    meta = {"name": "web", "namespace": "default"}
    cluster.add({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": ports}})
    await cluster.came(lambda: parent("ResolvedRefs"))
    gateway = cluster.object("gateways", "gw", "default")
    assert conditions(gateway) == {"Accepted": "True", "Programmed": "True"}
