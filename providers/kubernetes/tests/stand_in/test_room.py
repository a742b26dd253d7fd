"""Quotas, limit ranges, pod security and claims: what a namespace and its storage have room for."""

from __future__ import annotations

import pytest

from moorage_kubernetes.testing import ANY_MODE, StandInCluster
from moorage_kubernetes.testing.admission import usage
from moorage_kubernetes.testing.quantities import quantity, shown

from .asking import Api, Json, claim, deployment, event, ready, refused


def quota(**hard: str) -> Json:
    meta = {"name": "compute", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}}


def asking(cpu: str) -> Json:
    return {"resources": {"requests": {"cpu": cpu}}}


async def test_a_quota_holds_and_gives_free(cluster: StandInCluster, api: Api) -> None:
    cluster.add(quota(**{"requests.cpu": "3"}))
    await api.apply(deployment("a", replicas=1, container=asking("2")))
    await ready(cluster, "a")
    await api.apply(deployment("b", replicas=1, container=asking("1500m")))

    def failure() -> str | None:
        conditions = cluster.object("deployments", "b", "default")["status"].get("conditions", ())
        return next((one["message"] for one in conditions if one["type"] == "ReplicaFailure"), None)

    told = await cluster.came(failure)
    assert told.endswith(
        "exceeded quota: compute, requested: requests.cpu=1500m, used: requests.cpu=2, "
        "limited: requests.cpu=3"
    )
    assert "FailedCreate" in {one["reason"] for one in cluster.events()}
    assert cluster.object("resourcequotas", "compute", "default")["status"]["used"] == {"requests.cpu": "2"}
    await api.apps.delete_namespaced_deployment("a", "default")
    await ready(cluster, "b")


async def test_a_quota_wants_to_hear_how_much(cluster: StandInCluster, api: Api) -> None:
    cluster.add(quota(**{"requests.cpu": "3"}))
    await api.apply(deployment())
    told = await event(cluster, "FailedCreate")
    assert "failed quota: compute: must specify requests.cpu for: server" in told["message"]


async def test_a_limit_range_says_it_instead(cluster: StandInCluster, api: Api) -> None:
    cluster.add(quota(**{"requests.cpu": "3"}))
    limits = {"limits": [{"type": "Container", "defaultRequest": {"cpu": "1"}, "max": {"memory": "1Gi"}}]}
    meta = {"name": "l", "namespace": "default"}
    cluster.add({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": limits})
    await api.apply(deployment())
    await ready(cluster)
    [pod] = cluster.objects("pods")
    assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1"}
    big = {"resources": {"limits": {"memory": "2Gi"}}}
    await api.apply(deployment("big", container=big))
    assert "maximum memory usage per Container is 1Gi" in (await event(cluster, "FailedCreate"))["message"]


async def test_claims_count_too(cluster: StandInCluster, api: Api) -> None:
    cluster.add(quota(persistentvolumeclaims="1"))
    create = api.core.create_namespaced_persistent_volume_claim
    await create("default", claim("one"))
    status = await refused(create("default", claim("two")))
    assert status["message"].startswith('persistentvolumeclaims "two" is forbidden: exceeded quota: compute')


async def test_pod_security(cluster: StandInCluster, api: Api) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    await api.core.patch_namespace("default", {"metadata": {"labels": labels}})
    await api.apply(deployment())
    told = (await event(cluster, "FailedCreate"))["message"]
    assert 'violates PodSecurity "restricted:latest"' in told
    assert 'allowPrivilegeEscalation != false (container "server" must set' in told
    safe = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    await api.apply(deployment("safe", container={"securityContext": safe}, securityContext=pod))
    await ready(cluster, "safe")


async def test_a_claim_is_bound(cluster: StandInCluster, api: Api) -> None:
    await api.core.create_namespaced_persistent_volume_claim("default", claim("data"))
    found = await cluster.came(
        lambda: next((c for c in cluster.objects("pvc") if c["status"]["phase"] == "Bound"), None)
    )
    assert found["spec"]["storageClassName"] == "standard"  # the default one
    [volume] = cluster.objects("persistentvolumes")
    assert volume["metadata"]["name"] == found["spec"]["volumeName"]


async def test_a_class_that_cannot_do_the_mode(cluster: StandInCluster, api: Api) -> None:
    create = api.core.create_namespaced_persistent_volume_claim
    await create("default", claim("data", "ReadWriteMany"))
    assert "unsupported access mode ReadWriteMany" in (await event(cluster, "ProvisioningFailed"))["message"]
    cluster.add_storage_class("shared", ANY_MODE)
    await create("default", claim("more", "ReadWriteMany", "shared"))
    await cluster.came(lambda: cluster.object("pvc", "more", "default")["status"]["phase"] == "Bound")
    await create("default", claim("none", kind="missing"))
    await cluster.came(
        lambda: any('"missing" not found' in one["message"] for one in cluster.events("ProvisioningFailed"))
    )


async def test_a_pod_waits_for_its_claim(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.provisioning = frozenset({"data"})
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    await api.apply(deployment(volumes=volumes))
    assert 'persistentvolumeclaim "data" not found' in (await event(cluster, "FailedScheduling"))["message"]
    await api.core.create_namespaced_persistent_volume_claim("default", claim("data"))
    await cluster.came(
        lambda: any("unbound immediate" in one["message"] for one in cluster.events("FailedScheduling"))
    )
    cluster.faults.clear()
    await ready(cluster)


async def test_a_class_that_waits_for_its_first_consumer(cluster: StandInCluster, api: Api) -> None:
    cluster.add_storage_class("late", binding="WaitForFirstConsumer")
    await api.core.create_namespaced_persistent_volume_claim("default", claim("data", kind="late"))
    await event(cluster, "WaitForFirstConsumer")
    assert cluster.object("pvc", "data", "default")["status"]["phase"] == "Pending"
    await api.apply(deployment(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]))
    await ready(cluster)
    assert cluster.object("pvc", "data", "default")["status"]["phase"] == "Bound"


async def test_a_claim_in_use_is_kept(cluster: StandInCluster, api: Api) -> None:
    await api.core.create_namespaced_persistent_volume_claim("default", claim("data"))
    await api.apply(deployment(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]))
    await ready(cluster)
    await api.core.delete_namespaced_persistent_volume_claim("data", "default")
    assert cluster.object("pvc", "data", "default")["metadata"]["deletionTimestamp"]
    await api.apps.delete_namespaced_deployment("web", "default")
    await cluster.came(lambda: not cluster.objects("pvc"))
    await cluster.came(lambda: not cluster.objects("persistentvolumes"))


@pytest.mark.parametrize(
    ("text", "amount"), [("500m", "500m"), ("2", "2"), ("1e3", "1000"), ("1.5", "1500m"), ("1Ki", "1024")]
)
def test_quantities(text: str, amount: str) -> None:
    assert shown(quantity(text)) == amount


def test_bytes_are_told_in_binary_units() -> None:
    assert shown(quantity("2048Mi"), "bytes") == "2Gi"
    with pytest.raises(ValueError, match="regular expression"):
        quantity("2 GB")


def test_what_a_pod_counts_for(cluster: StandInCluster) -> None:
    amounts = {"cpu": "500m", "nvidia.com/gpu": "1"}
    pod = {"spec": {"containers": [{"resources": {"requests": amounts}}]}, "metadata": {}}
    counted = usage(cluster.resource("pods"), pod)
    assert (counted["requests.cpu"], counted["cpu"]) == (quantity("0.5"), quantity("0.5"))
    assert counted["requests.nvidia.com/gpu"] == counted["pods"] == 1
    assert usage(cluster.resource("pods"), pod | {"status": {"phase": "Failed"}}) == {}
