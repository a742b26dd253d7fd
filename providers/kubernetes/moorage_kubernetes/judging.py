"""From what a cluster shows of an endpoint to what the core reads of it. Pure: time is passed in.

One pod in trouble beside one that serves is a remark; trouble it is only when nothing serves, for then
waiting would be in vain. The Deployment's own conditions speak where there is no pod to look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any  # Kubernetes objects as they are read

from moorage.domain.observation import Access, Face, Observation, Replica, ReplicaState, Trouble
from moorage_kubernetes import marks
from moorage_kubernetes.drift import drift
from moorage_kubernetes.findings import Finding, Told, condition_of, finding_of, restarts_of
from moorage_kubernetes.settings import KubernetesSettings

Object = dict[str, Any]

LOG_LINES = 20
_OVER = ("Failed", "Succeeded")
_SEVERITY = (Trouble.REJECTED, Trouble.CRASH_LOOP, Trouble.NO_CAPACITY, None)


@dataclass(frozen=True, slots=True)
class Sight:
    """What was read in one look. `front` and `front_pods` are of a queue's front, None where there is no
    queue. `events` are read only where something is not ready, and `log` only where it crashes."""

    deployment: Object
    pods: tuple[Object, ...]
    front: Object | None = None
    front_pods: tuple[Object, ...] = ()
    events: tuple[Told, ...] = ()
    log: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Urls:
    """Through the API server: `pod` with `{pod}` in it, `service` of the front."""

    pod: str
    service: str


def judge(
    sight: Sight, urls: Urls, access: Access, settings: KubernetesSettings, now: datetime
) -> Observation:
    pods = living(sight.pods)
    findings = findings_of(sight, settings, now)
    replicas = tuple(_replica(p, urls, findings) for p in pods)
    serves = any(r.state is ReplicaState.READY for r in replicas)
    if sight.front is not None:
        replicas, access = _through_front(sight, replicas, urls), _jobs(access)
        serves = any(r.url for r in replicas) and (serves or asleep(sight.deployment))
    worst = _worst(findings, sight, settings)
    trouble = None if serves or worst is None else worst.trouble
    return Observation(
        replicas,
        stage=None if worst is None else worst.stage,
        trouble=trouble,
        message=None if worst is None else worst.message,
        log_tail=sight.log[-LOG_LINES:] if trouble is not None else (),
        access=access,
        drift=drift(sight.deployment),
        running=len(pods),
        asleep=sight.front is None and asleep(sight.deployment) and not pods,
        updating=updating(sight.deployment),
    )


def asleep(deployment: Object) -> bool:
    """Whether its autoscaler has let it down to no replica."""
    annotations = deployment["metadata"].get("annotations") or {}
    return (
        deployment["spec"].get("replicas", 1) == 0
        and annotations.get(marks.MAY_SLEEP) == "true"
        and marks.STOPPED not in annotations
    )


def stopped(deployment: Object) -> bool:
    return marks.STOPPED in (deployment["metadata"].get("annotations") or {})


def updating(deployment: Object) -> bool:
    """Whether a replica of an older plan is there still, or the newer plan was not begun with."""
    metadata, status = deployment["metadata"], deployment.get("status") or {}
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        return True
    return bool(status.get("replicas", 0) > status.get("updatedReplicas", 0))


def living(pods: Sequence[Object]) -> list[Object]:
    """Those that are there to stay: what is being deleted, or was evicted, is replaced by the Deployment."""
    return sorted(
        (
            pod
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
            and (pod.get("status") or {}).get("phase") not in _OVER
        ),
        key=lambda pod: str(pod["metadata"]["name"]),
    )


def is_ready(pod: Object) -> bool:
    condition = condition_of(pod, "Ready")
    return condition is not None and condition.get("status") == "True"


def findings_of(sight: Sight, settings: KubernetesSettings, now: datetime) -> dict[str, Finding]:
    """By pod, of those that are not ready; the front's pods are looked at too."""
    pods = (*living(sight.pods), *living(sight.front_pods))
    return {
        p["metadata"]["name"]: finding_of(p, sight.events, settings, now) for p in pods if not is_ready(p)
    }


# -- parts ---------------------------------------------------------------------------------------------------


def _replica(pod: Object, urls: Urls, findings: dict[str, Finding]) -> Replica:
    name = pod["metadata"]["name"]
    if is_ready(pod):
        return Replica(name, ReplicaState.READY, urls.pod.replace("{pod}", name))
    state = ReplicaState.RESTARTING if restarts_of(pod) else ReplicaState.STARTING
    return Replica(name, state, message=findings[name].message)


def _through_front(sight: Sight, replicas: tuple[Replica, ...], urls: Urls) -> tuple[Replica, ...]:
    """Requests go to the front, whoever works them off. Without it nobody is reached; with it and nobody at
    work for the moment, jobs are taken all the same, and told of."""
    if not any(is_ready(pod) for pod in living(sight.front_pods)):
        return tuple(
            Replica(r.id, ReplicaState.STARTING, message="the front of its queue is not ready")
            if r.state is ReplicaState.READY
            else r
            for r in replicas
        )
    if any(r.state is ReplicaState.READY for r in replicas):
        return tuple(
            Replica(r.id, r.state, urls.service) if r.state is ReplicaState.READY else r for r in replicas
        )
    if asleep(sight.deployment) or _has_served(sight.deployment):
        front = marks.front_name(sight.deployment["metadata"]["name"])
        return (*replicas, Replica(front, ReplicaState.READY, urls.service))
    return replicas


def _has_served(deployment: Object) -> bool:
    """Whether the replicas of the plan that is applied were all there once."""
    condition = condition_of(deployment, "Progressing")
    return condition is not None and condition.get("reason") == "NewReplicaSetAvailable"


def _jobs(access: Access) -> Access:
    return Access(Face.JOBS, access.bearer, access.authority, access.certificate, access.key)


def _worst(findings: dict[str, Finding], sight: Sight, settings: KubernetesSettings) -> Finding | None:
    """Of the pods; where none tells of trouble, of the Deployment."""
    of_pods = sorted(findings.values(), key=lambda f: _SEVERITY.index(f.trouble))
    if of_pods and of_pods[0].trouble is not None:
        return of_pods[0]
    of_deployments = [
        found
        for deployment in (sight.deployment, sight.front)
        if deployment is not None
        for found in (_not_made(deployment), _too_late(deployment, of_pods))
        if found is not None
    ]
    return next(iter((*of_deployments, *of_pods)), None)


def _not_made(deployment: Object) -> Finding | None:
    """Pods that the cluster does not let be made."""
    condition = condition_of(deployment, "ReplicaFailure")
    if condition is None or condition.get("status") != "True":
        return None
    words = str(condition.get("message") or "")
    if "exceeded quota" in words:
        return Finding(f"the namespace's quota leaves no room: {words}", Trouble.NO_CAPACITY)
    if "serviceaccount" in words and "not found" in words:
        return Finding(f"the namespace is not ready: {words}")  # it was made a moment ago
    return Finding(f"the cluster's admission refuses the pods: {words}", Trouble.REJECTED)


def _too_late(deployment: Object, of_pods: Sequence[Finding]) -> Finding | None:
    condition = condition_of(deployment, "Progressing")
    if condition is None or condition.get("reason") != "ProgressDeadlineExceeded":
        return None
    why = of_pods[0].message if of_pods else str(condition.get("message") or "")
    logs = of_pods[0].logs if of_pods else None
    return Finding(f"it did not get ready in the time that it had: {why}", Trouble.CRASH_LOOP, logs=logs)
