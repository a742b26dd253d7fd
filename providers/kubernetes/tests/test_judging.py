"""What is read off a pod and a Deployment, where a cluster on loopback would be too slow or too kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any  # Kubernetes objects as they are read

import pytest

from moorage.domain.observation import Access, ReplicaState, Trouble
from moorage_kubernetes import marks
from moorage_kubernetes.drift import drift, plan_mark, remarked
from moorage_kubernetes.findings import Finding, Told, finding_of, told
from moorage_kubernetes.judging import Sight, Urls, judge

from . import plans

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SETTINGS = plans.settings()
URLS = Urls("https://k/pods/{pod}/proxy", "https://k/services/front/proxy")
NAME = "mrg-2akzvmqnbojlkro5kmvtyppobs-r1-a1"


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def pod(
    name: str = "pod-1", *, node: str | None = "node-1", made: float = 5, **status: object
) -> dict[str, Any]:
    limits = {"limits": {"memory": "2Gi"}}
    return {
        "metadata": {"name": name, "creationTimestamp": ago(made)},
        "spec": {
            "containers": [{"name": "model", "resources": limits}],
            **({"nodeName": node} if node else {}),
        },
        "status": status,
    }


def container(**state: object) -> dict[str, Any]:
    more = {k: state.pop(k) for k in ("restartCount", "lastState") if k in state}
    return {"containerStatuses": [{"name": "model", "state": state, **more}]}


def waiting(reason: str, message: str = "", **more: object) -> dict[str, Any]:
    return container(waiting={"reason": reason, "message": message}, **more)


def unscheduled(words: str, waited: float) -> dict[str, Any]:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": words,
        "lastTransitionTime": ago(waited),
    }
    return pod(node=None, phase="Pending", conditions=[condition])


def event(reason: str, message: str = "", about: str = "Pod/pod-1") -> Told:
    return Told(about, reason, message)


def finding(of: dict[str, Any], *events: Told) -> Finding:
    return finding_of(of, events, SETTINGS, NOW)


def ready(name: str) -> dict[str, Any]:
    return pod(name, phase="Running", conditions=[{"type": "Ready", "status": "True"}])


def deployment(**more: Any) -> dict[str, Any]:  # Any: of JSON
    return {
        "metadata": {"name": NAME, "generation": 2, "annotations": more.pop("annotations", {})},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "model", "image": "a"}]}}}
        | more.pop("spec", {}),
        "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1} | more,
    }


def seen(*pods: dict[str, Any], of: dict[str, Any] | None = None, **more: Any) -> Any:  # Any: of JSON
    return judge(Sight(of or deployment(), pods, **more), URLS, Access(), SETTINGS, NOW)


# -- room -------------------------------------------------------------------------------------------------

NO_GPU = (
    "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: "
    "3 No preemption victims found for incoming pod."
)


@pytest.mark.parametrize(
    ("waited", "reasons", "trouble"),
    [
        (119, (), None),
        (121, (), Trouble.NO_CAPACITY),
        (31, ("NotTriggerScaleUp",), Trouble.NO_CAPACITY),
        (29, ("NotTriggerScaleUp",), None),
        (121, ("TriggeredScaleUp",), None),
        (899, ("NotTriggerScaleUp", "TriggeredScaleUp"), None),
        (901, ("TriggeredScaleUp",), Trouble.NO_CAPACITY),
        (121, ("Nominated",), None),
    ],
)
def test_an_autoscaler_makes_the_patience_longer_or_shorter(
    waited: float, reasons: tuple[str, ...], trouble: Trouble | None
) -> None:
    found = finding(unscheduled(NO_GPU, waited), *(event(reason) for reason in reasons))
    assert found.trouble is trouble
    assert "not enough GPUs" in found.message


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient memory.", "not enough CPU and memory"),
        ("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.", "no node belongs"),
        ("0/1 nodes are available: 1 node(s) had untolerated taint {team: a}.", "repel pods by taints"),
        ("0/1 nodes are available: 1 Too many pods.", "as the scheduler says"),
    ],
)
def test_the_words_of_the_scheduler_are_told_with_their_meaning(words: str, meaning: str) -> None:
    found = finding(unscheduled(words, 500))
    assert found.trouble is Trouble.NO_CAPACITY
    assert meaning in found.message
    assert words in found.message


def test_a_claim_that_does_not_exist_is_no_lack_of_room() -> None:
    found = finding(unscheduled('persistentvolumeclaim "data" not found', 1))
    assert found.trouble is Trouble.REJECTED


def test_a_claim_without_a_volume_tells_why_it_has_none() -> None:
    words = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    why = event("ProvisioningFailed", "quota of disks is used up", "PersistentVolumeClaim/data")
    assert finding(unscheduled(words, 10), why).trouble is None
    found = finding(unscheduled(words, 130), why)
    assert found.trouble is Trouble.REJECTED
    assert found.message == "a persistent volume is missing: quota of disks is used up"


# -- images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "words", "made", "trouble"),
    [
        ("ErrImagePull", "failed to resolve reference: a: not found", 5, Trouble.REJECTED),
        ("ErrImagePull", "pull access denied, repository does not exist", 5, Trouble.REJECTED),
        ("ErrImagePull", "unexpected status from HEAD request: 418", 5, None),
        ("ErrImagePull", "toomanyrequests: You have reached your pull rate limit", 5, None),
        ("ImagePullBackOff", 'Back-off pulling image "a"', 5, Trouble.REJECTED),
        ("ImagePullBackOff", "Back-off: dial tcp 1.2.3.4:443: i/o timeout", 299, None),
        ("ImagePullBackOff", "Back-off: dial tcp 1.2.3.4:443: i/o timeout", 301, Trouble.REJECTED),
        ("RegistryUnavailable", "", 10, None),
        ("InvalidImageName", "couldn't parse image name", 5, Trouble.REJECTED),
        ("ErrImageNeverPull", "", 5, Trouble.REJECTED),
    ],
)
def test_a_registry_that_is_out_of_order_is_waited_for(
    reason: str, words: str, made: float, trouble: Trouble | None
) -> None:
    found = finding(pod(made=made, **waiting(reason, words)))
    assert found.trouble is trouble
    assert reason in found.message


def test_a_back_off_is_told_with_what_came_before() -> None:
    failed = event("Failed", 'Failed to pull image "a": i/o timeout')
    found = finding(pod(**waiting("ImagePullBackOff", 'Back-off pulling image "a"')), failed)
    assert found.trouble is None
    assert "i/o timeout" in found.message


# -- running ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "events", "meaning"),
    [
        ({"exitCode": 137, "reason": "OOMKilled"}, (), "ran out of memory (limit 2Gi)"),
        ({"exitCode": 1, "reason": "Error"}, (), "exit code 1"),
        ({"exitCode": 0, "reason": "Completed"}, (), "must go on running"),
        ({"exitCode": 127, "reason": "ContainerCannotRun"}, (), "exit code 127 (ContainerCannotRun)"),
        (
            {"exitCode": 137, "reason": "Error"},
            (event("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500"),),
            "it was stopped because Liveness probe failed",
        ),
        ({}, (), "does not tell"),
    ],
)
def test_a_crash_is_told_with_its_reason(
    ended: dict[str, Any], events: tuple[Told, ...], meaning: str
) -> None:
    status = waiting("CrashLoopBackOff", restartCount=2, lastState={"terminated": ended})
    found = finding(pod(**status), *events)
    assert found.trouble is Trouble.CRASH_LOOP
    assert found.logs == "pod-1"
    assert meaning in found.message
    assert "2 restarts" in found.message


def test_one_crash_is_no_loop() -> None:
    status = container(terminated={"exitCode": 1, "reason": "Error"}, restartCount=0)
    found = finding(pod(**status))
    assert found.trouble is None
    assert found.message == "the container ended: exit code 1"


def test_a_sidecar_has_no_say() -> None:
    status = waiting("CrashLoopBackOff", restartCount=9)
    status["containerStatuses"][0]["name"] = "istio-proxy"
    status["containerStatuses"].append({"name": "model", "state": {"running": {}}})
    assert finding(pod(**status)).trouble is None


def test_an_init_container_that_crashes_is_told() -> None:
    status = waiting("PodInitializing")
    status["initContainerStatuses"] = [
        {"name": "injected", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3}
    ]
    assert finding(pod(**status)).trouble is Trouble.CRASH_LOOP


def test_the_reason_of_a_pod_that_is_being_made_is_told() -> None:
    making = waiting("ContainerCreating")
    assert finding(pod(**making), event("Pulling")).stage == "pulling"
    assert finding(pod(**making), event("Pulling"), event("Pulled")).stage == "starting"
    mount = event("FailedMount", 'MountVolume.SetUp failed for volume "claim-0"')
    assert finding(pod(made=10, **making), mount).trouble is None
    assert finding(pod(made=130, **making), mount).trouble is Trouble.REJECTED


def test_what_is_not_of_the_form_is_no_reason_to_fail() -> None:
    for broken in (
        pod(),
        pod(conditions=[{"type": "PodScheduled"}]),
        pod(node=None),
        pod(containerStatuses=[{"name": "model"}]),
        pod(containerStatuses=[{"name": "model", "state": {"waiting": {"reason": "NeverHeardOf"}}}]),
    ):
        assert finding(broken).message
    assert told({}) == Told("/", "", "")


# -- the whole --------------------------------------------------------------------------------------------


def test_pods_that_go_are_not_counted() -> None:
    going = ready("pod-0")
    going["metadata"]["deletionTimestamp"] = ago(1)
    evicted = pod("pod-2", phase="Failed", reason="Evicted")
    found = seen(going, ready("pod-1"), evicted)
    assert [r.id for r in found.replicas] == ["pod-1"]
    assert found.running == 1
    assert found.targets == ("https://k/pods/pod-1/proxy",)


def test_the_worst_of_several_pods_is_told() -> None:
    found = seen(pod("pod-1"), pod("pod-2", **waiting("CreateContainerConfigError", "no secret")))
    assert found.trouble is Trouble.REJECTED
    assert "no secret" in (found.message or "")


def test_beside_one_that_serves_it_is_a_remark() -> None:
    found = seen(ready("pod-1"), pod("pod-2", **waiting("CreateContainerConfigError", "no secret")))
    assert found.trouble is None
    assert "no secret" in (found.message or "")
    assert found.log_tail == ()


@pytest.mark.parametrize(
    ("words", "trouble"),
    [
        ('pods "a" is forbidden: exceeded quota: team, requested: pods=1', Trouble.NO_CAPACITY),
        ('pods "a" is forbidden: violates PodSecurity "restricted:latest"', Trouble.REJECTED),
        ("maximum memory usage per Container is 1Gi, but limit is 2Gi", Trouble.REJECTED),
        ('error looking up service account moorage/default: serviceaccount "default" not found', None),
    ],
)
def test_pods_that_cannot_be_made_are_told_by_the_deployment(words: str, trouble: Trouble | None) -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}
    found = seen(of=deployment(conditions=[condition]))
    assert found.trouble is trouble
    assert words in (found.message or "")


def test_a_rollout_is_under_way_until_the_old_replicas_are_gone() -> None:
    assert not seen(of=deployment()).updating
    assert seen(of=deployment(observedGeneration=1)).updating
    assert seen(of=deployment(replicas=2, updatedReplicas=1)).updating


@pytest.mark.parametrize(
    ("annotations", "asleep"),
    [
        ({marks.MAY_SLEEP: "true"}, True),
        ({marks.MAY_SLEEP: "false"}, False),
        ({marks.MAY_SLEEP: "true", marks.STOPPED: "true"}, False),
        ({}, False),
    ],
)
def test_only_what_its_autoscaler_let_down_is_asleep(annotations: dict[str, str], asleep: bool) -> None:
    found = seen(of=deployment(spec={"replicas": 0}, annotations=annotations, replicas=0, updatedReplicas=0))
    assert found.asleep is asleep


def test_jobs_go_to_the_front_whoever_works() -> None:
    front = deployment()
    working = seen(ready("pod-1"), front=front, front_pods=(ready("front-1"),))
    assert working.targets == ("https://k/services/front/proxy",)
    away = seen(ready("pod-1"), front=front, front_pods=(pod("front-1"),))
    assert away.targets == ()
    assert away.replicas[0].state is ReplicaState.STARTING
    annotations = {marks.MAY_SLEEP: "true"}
    sleeping = deployment(spec={"replicas": 0}, annotations=annotations, replicas=0, updatedReplicas=0)
    asleep = seen(of=sleeping, front=front, front_pods=(ready("front-1"),))
    assert asleep.targets == ("https://k/services/front/proxy",)
    assert not asleep.asleep


def test_the_front_takes_jobs_while_nobody_works_once_somebody_has() -> None:
    there = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}
    served = deployment(conditions=[there])
    at_front = {"front": deployment(), "front_pods": (ready("front-1"),)}
    for pods in ((), (pod("pod-1"),)):
        assert seen(*pods, of=deployment(), **at_front).targets == ()
        assert seen(*pods, of=served, **at_front).targets == ("https://k/services/front/proxy",)
    starts = waiting("CrashLoopBackOff", restartCount=9)
    crashing = seen(pod("pod-1", **starts), of=served, **at_front)
    assert crashing.trouble is Trouble.CRASH_LOOP, "that jobs are taken does not hide that nobody does them"
    assert seen(pod("pod-1"), of=served, front=deployment(), front_pods=(pod("front-1"),)).targets == ()


# -- drift ------------------------------------------------------------------------------------------------


def marked(replicas: int | None = 1, **container: object) -> dict[str, Any]:
    made = deployment()
    made["spec"]["template"]["spec"]["containers"][0] |= {"env": [{"name": "E", "value": ""}], **container}
    made["metadata"]["annotations"] = {marks.PLAN: plan_mark(made, replicas)}
    return made


def test_what_a_server_fills_in_is_no_drift() -> None:
    there = marked()
    first = there["spec"]["template"]["spec"]["containers"][0]
    first["env"] = [{"name": "E"}]  # an empty value is left out
    first |= {"imagePullPolicy": "IfNotPresent", "resources": {"requests": {"cpu": "500m"}}}
    assert drift(there) is None
    assert remarked(there) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "b"}, "its image was changed"),
        ({"args": ["--evil"]}, "its command was changed"),
        ({"env": [{"name": "E", "value": "1"}]}, "its environment was changed"),
    ],
)
def test_a_change_is_told_in_words(change: dict[str, Any], words: str) -> None:
    there = marked()
    there["spec"]["template"]["spec"]["containers"][0] |= change
    assert drift(there) == words
    assert remarked(there) not in (None, there["metadata"]["annotations"][marks.PLAN])


def test_replicas_of_an_autoscaler_or_of_a_stop_are_no_drift() -> None:
    there = marked(replicas=None)
    there["spec"]["replicas"] = 7
    assert drift(there) is None
    there = marked(replicas=2)
    assert drift(there) == "its replicas were 2 and are 1"
    there["metadata"]["annotations"][marks.STOPPED] = "true"
    assert drift(there) is None


@pytest.mark.parametrize("mark", ["", "{", "[]", "null", "5"])
def test_a_mark_that_somebody_spoiled_says_nothing(mark: str) -> None:
    there = marked()
    there["metadata"]["annotations"][marks.PLAN] = mark
    assert drift(there) is None
