"""Each way in which a pod fails, as a real cluster shows it; and that it recovers once the cause is gone."""

from __future__ import annotations

import pytest

from moorage_kubernetes.testing import StandInCluster

from .asking import Api, Json, deployment, event, pod_where, ready, refused, waiting


def first(pod: Json) -> Json:
    statuses = pod["status"].get("containerStatuses") or [{}]
    found: Json = statuses[0]
    return found


async def test_image_pull(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.image_pull = frozenset({"acme/*"})
    await api.apply(deployment())
    await pod_where(cluster, lambda pod: waiting(pod) == "ErrImagePull")
    await pod_where(cluster, lambda pod: waiting(pod) == "ImagePullBackOff")
    messages = {one["message"] for one in cluster.events("Failed")}
    assert {"Error: ErrImagePull", "Error: ImagePullBackOff"} < messages
    assert any("acme/web:1: not found" in message for message in messages)
    cluster.faults.clear()
    await ready(cluster)


async def test_an_image_that_is_no_name(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment(image="Acme/Web::1"))
    await pod_where(cluster, lambda pod: waiting(pod) == "InvalidImageName")


async def test_a_missing_secret(cluster: StandInCluster, api: Api) -> None:
    source = {"secretKeyRef": {"name": "s", "key": "token"}}
    await api.apply(deployment(container={"env": [{"name": "T", "valueFrom": source}]}))
    pod = await pod_where(cluster, lambda pod: waiting(pod) == "CreateContainerConfigError")
    assert first(pod)["state"]["waiting"]["message"] == 'secret "s" not found'
    body = {"metadata": {"name": "s"}, "stringData": {"other": "x"}}
    await api.core.create_namespaced_secret("default", body)
    await api.core.patch_namespaced_secret("s", "default", {"stringData": {"token": "x"}})
    await ready(cluster)


async def test_config_error_by_fault(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.config_error = frozenset({"web"})
    await api.apply(deployment())
    await pod_where(cluster, lambda pod: waiting(pod) == "CreateContainerConfigError")


async def test_out_of_memory(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment())
    await ready(cluster)
    cluster.faults.oom_killed = frozenset({"web"})
    pod = await pod_where(
        cluster, lambda pod: waiting(pod) == "CrashLoopBackOff" and first(pod)["restartCount"] > 1
    )
    over = first(pod)["lastState"]["terminated"]
    assert (over["reason"], over["exitCode"]) == ("OOMKilled", 137)
    cluster.faults.clear()
    await ready(cluster)


async def test_crash_loop(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.crash_lines = ("loading", "CUDA out of memory")
    cluster.faults.crash_loop = frozenset({"web"})
    await api.apply(deployment())
    pod = await pod_where(
        cluster, lambda pod: waiting(pod) == "CrashLoopBackOff" and first(pod)["restartCount"] > 1
    )
    assert first(pod)["lastState"]["terminated"]["exitCode"] == 1
    assert "back-off" in first(pod)["state"]["waiting"]["message"]
    name = pod["metadata"]["name"]
    for previous in (False, True):
        text = await api.core.read_namespaced_pod_log(name, "default", previous=previous)
        assert text == "loading\nCUDA out of memory\n"
    assert await api.core.read_namespaced_pod_log(name, "default", tail_lines=1) == "CUDA out of memory\n"
    assert (await event(cluster, "BackOff"))["message"].startswith("Back-off restarting failed container")


@pytest.mark.parametrize("kind", ["startup", "readiness"])
async def test_probes(cluster: StandInCluster, api: Api, kind: str) -> None:
    setattr(cluster.faults, f"{kind}_probe", frozenset({"web"}))
    await api.apply(deployment())
    told = await event(cluster, "Unhealthy")
    assert told["message"].startswith(f"{kind.capitalize()} probe failed: ")
    [pod] = cluster.objects("pods")
    assert pod["status"]["phase"] == "Running"
    assert first(pod)["ready"] is False
    conditions = {
        one["type"]: one for one in cluster.object("deployments", "web", "default")["status"]["conditions"]
    }
    assert conditions["Available"]["status"] == "False"
    cluster.faults.clear()
    await ready(cluster)
    setattr(cluster.faults, f"{kind}_probe", frozenset({"web"}))  # and once it is up
    await pod_where(cluster, lambda pod: not first(pod)["ready"])


@pytest.mark.parametrize(
    ("fault", "reason"), [("failed_mount", "FailedMount"), ("failed_attach", "FailedAttachVolume")]
)
async def test_volumes(cluster: StandInCluster, api: Api, fault: str, reason: str) -> None:
    setattr(cluster.faults, fault, frozenset({"web"}))
    await api.apply(deployment())
    await event(cluster, reason)
    assert waiting(cluster.objects("pods")[0]) == "ContainerCreating"
    cluster.faults.clear()
    await ready(cluster)


async def test_a_mounted_secret_that_is_missing(cluster: StandInCluster, api: Api) -> None:
    volumes = [{"name": "s", "secret": {"secretName": "s"}}]
    await api.apply(deployment(volumes=volumes))
    told = await event(cluster, "FailedMount")
    assert told["message"] == 'MountVolume.SetUp failed for volume "s" : secret "s" not found'
    await api.core.create_namespaced_secret("default", {"metadata": {"name": "s"}})
    await ready(cluster)


async def test_quota_by_fault(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.quota = frozenset({"web"})
    await api.apply(deployment())

    def failure() -> Json | None:
        status = cluster.object("deployments", "web", "default")["status"]
        return next((one for one in status.get("conditions", ()) if one["type"] == "ReplicaFailure"), None)

    found = await cluster.came(failure)
    assert (found["status"], found["reason"]) == ("True", "FailedCreate")
    assert "exceeded quota" in found["message"]
    assert cluster.objects("pods") == []
    cluster.faults.clear()
    await ready(cluster)
    await cluster.came(lambda: not failure())


async def test_the_progress_deadline(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.never_scheduled = frozenset({"*"})
    body = deployment()
    body["spec"]["progressDeadlineSeconds"] = 1
    await api.apply(body)

    def late() -> bool:
        status = cluster.object("deployments", "web", "default")["status"]
        return any(one["reason"] == "ProgressDeadlineExceeded" for one in status.get("conditions", ()))

    await cluster.came(late)
    await api.apply(deployment("other"))
    cluster.faults.progress_deadline = frozenset({"other"})
    await cluster.came(
        lambda: [
            one
            for one in cluster.object("deployments", "other", "default")["status"]["conditions"]
            if one["type"] == "Progressing" and one["status"] == "False"
        ]
    )


async def test_no_kubelet(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.no_kubelet = True
    await api.apply(deployment())
    pod = await pod_where(cluster, lambda pod: pod["spec"].get("nodeName"))
    assert pod["status"]["phase"] == "Pending"
    assert "containerStatuses" not in pod["status"]
    await api.apps.delete_namespaced_deployment("web", "default")
    await cluster.came(lambda: not cluster.objects("pods"))


async def test_admission(cluster: StandInCluster, api: Api) -> None:
    cluster.faults.admission_forbidden = frozenset({"deployments/web"})
    status = await refused(api.apply(deployment()))
    assert (status["code"], status["reason"]) == (403, "Forbidden")
    assert status["message"].startswith("admission webhook")
    cluster.faults.admission_forbidden = frozenset()
    cluster.faults.admission_invalid = frozenset({"deployments/*"})
    assert (await refused(api.apply(deployment())))["reason"] == "Invalid"


def test_a_fault_is_a_set() -> None:
    with pytest.raises(TypeError, match=r"faults\.crash_loop is a set of patterns"):
        StandInCluster().faults.crash_loop = "web"  # type: ignore[assignment]  # the mistake that is meant
