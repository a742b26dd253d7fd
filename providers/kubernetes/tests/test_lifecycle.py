"""An endpoint from its making to its end: what is made, changed, stopped, woken and left."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import Any  # Kubernetes objects as they are read

import pytest
from kubernetes_asyncio import client

from moorage.domain.deployment import Handle
from moorage.domain.observation import Face
from moorage.domain.workload import AccessMode, Autoscale, Metric, Queued, ScalingTarget, Volume
from moorage.errors import Gone, Rejected
from moorage.ports.outside import RegistryAccess
from moorage.ports.provider import Absent, Callback, Credentials, RevisionPlan, StillThere
from moorage.testing.provider_contract import until_absent
from moorage_kubernetes import marks
from moorage_kubernetes.cluster_provider import KubernetesProvider
from moorage_kubernetes.testing import ANY_MODE

from . import plans
from .conftest import House
from .looking import serves, until

GIB = 1024**3
BY_CPU = Autoscale((ScalingTarget(Metric.CPU, 80),))
BY_LOAD = Autoscale((ScalingTarget(Metric.CONCURRENCY, 4),), cooldown_seconds=30)
SHARED = Volume("pvc-data", "/data", GIB, AccessMode.READ_WRITE_MANY, "shared")


async def started(house: House, name: str, plan: RevisionPlan) -> tuple[KubernetesProvider, Handle]:
    provider = house.provider()
    handle = await provider.create(plan, name, house.credentials)
    await until(provider, handle, house.credentials, serves)
    return provider, handle


def deployment(house: House, name: str) -> dict[str, Any]:
    return house.cluster.object("deployments", name, plans.NAMESPACE)


def replicas(house: House, name: str) -> int:
    return int(deployment(house, name)["spec"]["replicas"])


def notes(house: House, name: str) -> dict[str, str]:
    return dict(deployment(house, name)["metadata"].get("annotations") or {})


async def stop(provider: KubernetesProvider, handle: Handle, credentials: Credentials) -> None:
    """As the engine does."""
    async with asyncio.timeout(10):
        answer = await provider.stop(handle, credentials)
        while isinstance(answer, StillThere):
            await asyncio.sleep(min(answer.after, 0.05))
            answer = await provider.stop(handle, credentials)


# -- what is made -----------------------------------------------------------------------------------------


async def test_everything_is_labelled_and_goes_with_its_deployment(house: House, name: str) -> None:
    await started(house, name, plans.plan())
    owner = deployment(house, name)["metadata"]["uid"]
    for kind in ("Service", "Secret", "PodDisruptionBudget"):
        made = house.cluster.object(kind, name, plans.NAMESPACE)["metadata"]
        assert made["labels"] == marks.labels(plans.INSTALLATION, name, "dep_tests")
        assert [o["uid"] for o in made["ownerReferences"]] == [owner]


async def test_secret_values_stand_in_the_secret_and_nowhere_else(house: House, name: str) -> None:
    plan = replace(
        plans.image_plan(env={"MODE": "fast", "TOKEN": "hush-1"}, secret_env=("TOKEN",)),
        hub_token="hf_hush-2",
        registry=RegistryAccess("registry.example.com", "robot", "hush-3"),
    )
    await started(house, name, plan)
    data = house.cluster.object("secrets", name, plans.NAMESPACE)["data"]
    assert base64.b64decode(data["TOKEN"]) == b"hush-1"
    assert base64.b64decode(data["HF_TOKEN"]) == b"hf_hush-2"
    told = str([house.cluster.objects(k) for k in ("deployments", "pods", "services", "events")])
    assert "hush" not in told
    assert "'name': 'MODE', 'value': 'fast'" in told
    spec = deployment(house, name)["spec"]["template"]["spec"]
    assert spec["imagePullSecrets"] == [{"name": f"{name}-registry"}]


async def test_without_a_workload_all_variables_are_secret(house: House, name: str) -> None:
    plan = replace(plans.plan(env={"KEY": "hush"}), callback=Callback("https://m.example.com", "whsec_hush"))
    await started(house, name, plan)
    assert "hush" not in str(house.cluster.objects("deployments"))


async def test_the_namespace_is_made_where_it_is_missing(house: House, name: str) -> None:
    assert not [n for n in house.cluster.objects("namespaces") if n["metadata"]["name"] == "models"]
    provider = house.provider()
    credentials = Credentials(house.cluster.values(namespace="models"))
    handle = await provider.create(plans.plan(), name, credentials)
    await until(provider, handle, credentials, serves)
    await until_absent(provider, handle, credentials, 10)


# -- changes ----------------------------------------------------------------------------------------------


async def test_a_change_of_a_secret_rolls_the_pods_and_the_old_one_serves_meanwhile(
    house: House, name: str
) -> None:
    provider, handle = await started(house, name, plans.plan(env={"KEY": "one"}))
    (before,) = house.cluster.objects("pods", plans.NAMESPACE)
    await provider.apply(handle, plans.plan(env={"KEY": "two"}), house.credentials)
    seen = await provider.observe(handle, house.credentials)
    assert seen.updating
    assert seen.targets
    seen = await until(provider, handle, house.credentials, lambda s: not s.updating)
    (after,) = seen.targets
    assert before["metadata"]["name"] not in after


async def test_what_somebody_else_changed_is_told_and_put_back(house: House, name: str) -> None:
    plan = plans.image_plan(replicas=2)
    provider, handle = await started(house, name, plan)
    assert (await provider.observe(handle, house.credentials)).drift is None
    api = await house.cluster.api_client()
    async with api:
        apps = client.AppsV1Api(api)
        change: dict[str, Any] = {"spec": {"replicas": 0}}
        await apps.patch_namespaced_deployment(name, plans.NAMESPACE, change, field_manager="kubectl")
        seen = await provider.observe(handle, house.credentials)
        assert seen.drift == "its replicas were 2 and are 0"
        container = {"name": "model", "image": "registry.example.com/acme/other:1"}
        change = {"spec": {"template": {"spec": {"containers": [container]}}}}
        await apps.patch_namespaced_deployment(name, plans.NAMESPACE, change, field_manager="kubectl")
        seen = await provider.observe(handle, house.credentials)
        assert seen.drift is not None
        assert "its image was changed" in seen.drift
    await provider.apply(handle, plan, house.credentials)
    assert (await provider.observe(handle, house.credentials)).drift is None
    assert replicas(house, name) == 2


async def test_replicas_are_an_autoscalers_once_there_is_one(house: House, name: str) -> None:
    plan = plans.image_plan(replicas=2, max_replicas=5, autoscale=BY_CPU)
    provider, handle = await started(house, name, plan)
    house.cluster.recommend(name, 4)
    await house.cluster.came(lambda: replicas(house, name) == 4)
    await provider.apply(handle, plan, house.credentials)
    assert replicas(house, name) == 4
    assert (await provider.observe(handle, house.credentials)).drift is None


async def test_an_autoscaler_takes_over_without_a_replica_lost_and_lets_go_again(
    house: House, name: str
) -> None:
    fixed = plans.image_plan(replicas=3)
    provider, handle = await started(house, name, fixed)
    scaled = plans.image_plan(replicas=2, max_replicas=5, autoscale=BY_CPU)
    house.cluster.recommend(name, 3)
    await provider.apply(handle, scaled, house.credentials)
    assert replicas(house, name) == 3
    assert house.cluster.objects("scaledobjects")
    await provider.apply(handle, replace(fixed, replicas=1), house.credentials)
    await house.cluster.came(lambda: not house.cluster.objects("scaledobjects"))
    assert replicas(house, name) == 1


# -- volumes ----------------------------------------------------------------------------------------------


async def test_a_volume_that_we_made_goes_with_its_deployment(house: House, name: str) -> None:
    house.cluster.add_storage_class("shared", ANY_MODE, provisioner="nfs.csi.k8s.io")
    provider, handle = await started(house, name, plans.image_plan(volumes=(SHARED,)))
    assert [p["metadata"]["name"] for p in house.cluster.objects("persistentvolumeclaims")] == ["pvc-data"]
    await until_absent(provider, handle, house.credentials, 10)
    assert house.left() == {}


async def test_a_volume_that_was_there_is_used_and_stays(house: House, name: str) -> None:
    house.cluster.add_storage_class("shared", ANY_MODE)
    house.cluster.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": plans.NAMESPACE}})
    mine = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "pvc-data", "namespace": plans.NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "shared",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    house.cluster.add(mine)
    provider, handle = await started(house, name, plans.image_plan(volumes=(SHARED,)))
    await until_absent(provider, handle, house.credentials, 10)
    assert house.left() == {"PersistentVolumeClaim": ["pvc-data"]}


async def test_a_volume_of_another_deployment_is_refused(house: House, name: str) -> None:
    house.cluster.add_storage_class("shared", ANY_MODE)
    provider, _ = await started(house, name, plans.image_plan(volumes=(SHARED,)))
    other = plans.image_plan(volumes=(SHARED,), deployment_id="dep_other")
    with pytest.raises(Rejected) as raised:
        await provider.create(other, name.replace("-a1", "-a2"), house.credentials)
    (error,) = raised.value.fields
    assert error.field == "workload.volumes[0].name"
    assert "another deployment (dep_tests)" in error.message


async def test_an_access_mode_that_the_storage_class_cannot_do_is_refused(house: House, name: str) -> None:
    house.cluster.add_storage_class("shared", provisioner="ebs.csi.aws.com")
    with pytest.raises(Rejected) as raised:
        await house.provider().create(plans.image_plan(volumes=(SHARED,)), name, house.credentials)
    (error,) = raised.value.fields
    assert error.field == "workload.volumes[0].access_mode"
    assert error.message == (
        "the storage class shared (ebs.csi.aws.com) cannot do ReadWriteMany; "
        "it can do ReadWriteOnce, ReadWriteOncePod"
    )


# -- stop, start, sleep -----------------------------------------------------------------------------------


async def test_stop_keeps_volumes_and_names_and_start_brings_it_back(house: House, name: str) -> None:
    house.cluster.add_storage_class("shared", ANY_MODE)
    plan = plans.image_plan(replicas=2, max_replicas=4, autoscale=BY_CPU, volumes=(SHARED,))
    provider, handle = await started(house, name, plan)
    await stop(provider, handle, house.credentials)
    assert house.cluster.objects("pods", plans.NAMESPACE) == []
    assert house.cluster.objects("scaledobjects") == []
    assert len(house.cluster.objects("persistentvolumeclaims")) == 1
    seen = await provider.observe(handle, house.credentials)
    assert (seen.replicas, seen.running, seen.asleep, seen.drift) == ((), 0, False, None)
    assert await provider.stop(handle, house.credentials) == Absent()
    await provider.apply(handle, plan, house.credentials)
    await until(provider, handle, house.credentials, lambda s: len(s.targets) == 2)
    assert marks.STOPPED not in notes(house, name)
    assert house.cluster.objects("scaledobjects")


async def test_stop_of_what_is_not_there_is_gone(house: House, name: str) -> None:
    with pytest.raises(Gone):
        await house.provider().stop(Handle("kubernetes", name), house.credentials)


async def test_a_deployment_that_sleeps_is_seen_asleep_and_can_be_woken(house: House, name: str) -> None:
    credentials = Credentials(house.cluster.values(prometheus_url="http://prometheus.monitoring:9090"))
    provider = house.provider()
    plan = plans.image_plan(autoscale=BY_LOAD, scale_to_zero=True, max_replicas=3)
    handle = await provider.create(plan, name, credentials)
    await until(provider, handle, credentials, serves)
    house.cluster.set_active(name, True)
    await house.cluster.came(
        lambda: (
            house.cluster.object("scaledobjects", name, plans.NAMESPACE)
            .get("status", {})
            .get("lastActiveTime")
        )
    )
    house.cluster.set_active(name, False)
    seen = await until(provider, handle, credentials, lambda s: s.asleep)
    assert (seen.replicas, seen.running, seen.trouble, seen.drift) == ((), 0, None, None)
    await provider.wake(handle, credentials)
    assert notes(house, name)[marks.WOKEN] == "true"
    await until(provider, handle, credentials, serves)
    assert marks.WOKEN not in notes(house, name)
    (scaled,) = house.cluster.objects("scaledobjects")
    assert marks.KEDA_ACTIVATION not in (scaled["metadata"].get("annotations") or {})


async def test_wake_of_what_is_not_there_is_gone(house: House, name: str) -> None:
    with pytest.raises(Gone):
        await house.provider().wake(Handle("kubernetes", name), house.credentials)


# -- queues -----------------------------------------------------------------------------------------------


async def test_a_queue_has_a_front_that_takes_jobs(house: House, name: str) -> None:
    credentials = Credentials(
        house.cluster.values(
            rabbitmq_url="amqp://user:hush@rabbitmq.default:5672",
            redis_url="redis://:hush@redis.default:6379",
        )
    )
    provider = house.provider()
    scaling = Autoscale((ScalingTarget(Metric.QUEUE_LENGTH, 10),))
    work = replace(
        plans.workload(queued=Queued(consumers=3), autoscale=scaling, grace_seconds=45),
        ports=None,
        health=None,
    )
    plan = plans.plan(workload=work, replicas=2, max_replicas=4)
    handle = await provider.create(plan, name, credentials)
    seen = await until(provider, handle, credentials, lambda s: len(s.targets) == 2)
    assert seen.access.face is Face.JOBS
    url = f"{house.cluster.url}/api/v1/namespaces/moorage/services/http:{name}:http/proxy"
    assert set(seen.targets) == {url}
    assert seen.running == 2
    front = deployment(house, marks.front_name(name))
    (container,) = front["spec"]["template"]["spec"]["containers"]
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert env["MOORAGE_WORKER_FACE"] == "queue_front"
    assert "hush" not in str(house.cluster.objects("deployments"))
    await stop(provider, handle, credentials)
    assert house.cluster.objects("pods", plans.NAMESPACE) == []
    await provider.apply(handle, plan, credentials)
    await until(provider, handle, credentials, serves)
    await until_absent(provider, handle, credentials, 10)
    assert house.left() == {}


async def test_a_queue_without_its_tools_is_refused_before_anything_is_made(house: House, name: str) -> None:
    work = replace(plans.workload(queued=Queued()), ports=None, health=None)
    with pytest.raises(Rejected, match="needs rabbitmq"):
        await house.provider().create(plans.plan(workload=work), name, house.credentials)
    assert house.left() == {}


# -- the cluster's own gateway ----------------------------------------------------------------------------


async def test_a_gateway_that_was_named_gets_a_route(house: House, name: str) -> None:
    credentials = Credentials(house.cluster.values(gateway="edge/public"))
    provider = house.provider()
    handle = await provider.create(plans.plan(), name, credentials)
    await until(provider, handle, credentials, serves)
    route = house.cluster.object("httproutes", name, plans.NAMESPACE)
    assert route["spec"]["parentRefs"][0]["name"] == "public"
    assert route["spec"]["parentRefs"][0]["namespace"] == "edge"
    assert house.cluster.object("backendtrafficpolicies", name, plans.NAMESPACE)
    await until_absent(provider, handle, credentials, 10)
    assert house.left() == {}
