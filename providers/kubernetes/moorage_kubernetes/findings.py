"""Why a pod is not ready, told from what its status and its events say. Pure: time is passed in.

The words of the scheduler, the kubelet and the registries are passed on, with what they mean in front: they
are what a user searches for. Whether waiting may help is what the rest of the system wants to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any  # Kubernetes objects as they are read

from moorage.domain.observation import Trouble
from moorage_kubernetes.settings import KubernetesSettings

Object = dict[str, Any]

MAX_WORDS = 400
LOOP = 1  # restarts before a back-off is a loop

IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
VOLUME_EVENTS = frozenset({"FailedAttachVolume", "FailedMount", "ProvisioningFailed"})
GROWING = frozenset({"TriggeredScaleUp", "Nominated"})
NOT_GROWING = frozenset({"NotTriggerScaleUp"})

# What a registry says when it may say something else the next time.
_PASSING = re.compile(
    r"toomanyrequests|too many requests|rate limit|i/o timeout|timed? ?out|connection (?:refused|reset)"
    r"|no such host|server misbehaving|unexpected EOF|50[0234] |TLS handshake|RegistryUnavailable",
    re.I,
)
_LACKING = re.compile(r"Insufficient ([\w./-]*\w)")
_WORDS_FOR = {"nvidia.com/gpu": "GPUs", "cpu": "CPU", "memory": "memory", "pods": "room for pods"}


@dataclass(frozen=True, slots=True)
class Finding:
    """`trouble` None: waiting may help. `logs` names the pod whose last container's log tells more."""

    message: str
    trouble: Trouble | None = None
    stage: str = "starting"
    logs: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """An event: what it is about (kind/name), and what it says."""

    about: str
    reason: str
    message: str


def told(event: Object) -> Told:
    about = event.get("involvedObject") or event.get("regarding") or {}
    name = f"{about.get('kind', '')}/{about.get('name', '')}"
    return Told(name, str(event.get("reason") or ""), str(event.get("message") or event.get("note") or ""))


def finding_of(pod: Object, events: Sequence[Told], settings: KubernetesSettings, now: datetime) -> Finding:
    """Of a pod that is not ready; `events` of the pod and of its claims."""
    about = f"Pod/{pod['metadata']['name']}"
    own = [e for e in events if e.about == about]
    if not pod["spec"].get("nodeName"):
        return _unscheduled(pod, own, events, settings, now)
    container = _container_status(pod)
    waiting = ((container or {}).get("state") or {}).get("waiting") or {}
    reason = waiting.get("reason", "")
    if container is None or reason in ("", "ContainerCreating", "PodInitializing"):
        if container is None or waiting:
            return _not_created(pod, own, settings, now)
        return _running(pod, container, own)
    if reason in IMAGE_REASONS:
        return _image(pod, waiting, own, settings, now)
    if reason in CONFIG_REASONS:
        message = f"the container cannot be made ({reason}): {_cut(waiting.get('message', ''))}"
        return Finding(message, Trouble.REJECTED)
    return _crashed(pod, container, own)


# -- before it runs -----------------------------------------------------------------------------------------


def _unscheduled(
    pod: Object,
    own: Sequence[Told],
    events: Sequence[Told],
    settings: KubernetesSettings,
    now: datetime,
) -> Finding:
    condition = condition_of(pod, "PodScheduled")
    if condition is None or condition.get("status") != "False":
        return Finding("waiting for the scheduler", stage="queued")
    words = str(condition.get("message") or "no node is free")
    waited = (now - _time(condition.get("lastTransitionTime"), pod, now)).total_seconds()
    if "PersistentVolumeClaim" in words or "persistentvolumeclaim" in words:
        return _unbound(words, events, waited, settings)
    reasons = {event.reason for event in own}
    grows = next((e.message for e in own if e.reason in GROWING), None)
    refused = next((e.message for e in own if e.reason in NOT_GROWING), None)
    patience = settings.capacity_patience
    if grows is not None:
        patience = max(patience, settings.growth_patience)
    elif reasons & NOT_GROWING:
        patience /= 4
    message = f"no node has room for the pod ({_lacking(words)}): {_cut(words)}"
    if refused is not None and grows is None:
        message += f"; the autoscaler adds none: {_cut(refused)}"
    if waited < patience:
        return Finding(message, stage="scaling_up" if grows is not None else "queued")
    return Finding(f"{message} (for {waited:.0f} s)", Trouble.NO_CAPACITY)


def _unbound(words: str, events: Sequence[Told], waited: float, settings: KubernetesSettings) -> Finding:
    why = next((e.message for e in events if e.reason in VOLUME_EVENTS), None)
    message = f"a persistent volume is missing: {_cut(why or words)}"
    hopeless = "not found" in words or waited >= settings.volume_patience
    return Finding(message, Trouble.REJECTED if hopeless else None, stage="volumes")


def _lacking(words: str) -> str:
    lacking = list(dict.fromkeys(_LACKING.findall(words)))
    if lacking:
        return f"not enough {' and '.join(_WORDS_FOR.get(name, name) for name in lacking)}"
    if "untolerated taint" in words:
        return "its nodes repel pods by taints"
    if "node affinity" in words or "node selector" in words:
        return "no node belongs to its node group"
    return "as the scheduler says"


def _not_created(pod: Object, own: Sequence[Told], settings: KubernetesSettings, now: datetime) -> Finding:
    waited = (
        now - _time((condition_of(pod, "PodScheduled") or {}).get("lastTransitionTime"), pod, now)
    ).total_seconds()
    volume = next((e for e in reversed(own) if e.reason in VOLUME_EVENTS), None)
    if volume is not None:
        message = f"a volume cannot be used ({volume.reason}): {_cut(volume.message)}"
        hopeless = waited >= settings.volume_patience
        return Finding(message, Trouble.REJECTED if hopeless else None, stage="volumes")
    sandbox = next((e for e in reversed(own) if e.reason == "FailedCreatePodSandBox"), None)
    if sandbox is not None:
        return Finding(f"the node cannot make the pod: {_cut(sandbox.message)}")
    node = pod["spec"].get("nodeName")
    if not (pod.get("status") or {}).get("containerStatuses"):
        return Finding(f"node {node} has not begun with the pod")
    pulling = any(e.reason == "Pulling" for e in own) and not any(e.reason == "Pulled" for e in own)
    words = "its image is being pulled" if pulling else "its container is being made"
    return Finding(words, stage="pulling" if pulling else "starting")


def _image(
    pod: Object, waiting: Object, own: Sequence[Told], settings: KubernetesSettings, now: datetime
) -> Finding:
    reason = waiting["reason"]
    failed = [
        e.message for e in own if e.reason in ("Failed", "InspectFailed") and " image " in f" {e.message} "
    ]
    words = str(waiting.get("message") or "")
    if failed and (not words or words.startswith("Back-off")):
        words = failed[-1]
    message = f"the image cannot be pulled ({reason}): {_cut(words)}"
    waited = (now - _time(None, pod, now)).total_seconds()
    if _PASSING.search(f"{reason} {words}") and waited < settings.pull_patience:
        return Finding(message, stage="pulling")
    if reason == "ErrImagePull" and not re.search(r"not found|unauthori[sz]ed|denied|forbidden", words, re.I):
        return Finding(message, stage="pulling")  # the kubelet tries again, and then says ImagePullBackOff
    return Finding(message, Trouble.REJECTED)


# -- once it runs -------------------------------------------------------------------------------------------


def _running(pod: Object, container: Object, own: Sequence[Told]) -> Finding:
    ended = ((container.get("state") or {}).get("terminated")) or {}
    if ended:
        return _crashed(pod, container, own)
    probe = next((e.message for e in reversed(own) if e.reason == "Unhealthy"), None)
    if probe is not None:
        return Finding(
            f"it runs and is not ready: {_cut(probe)}", stage="loading", logs=pod["metadata"]["name"]
        )
    return Finding("it runs and is not ready yet", stage="loading")


def _crashed(pod: Object, container: Object, own: Sequence[Told]) -> Finding:
    state = container.get("state") or {}
    last = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    restarts = int(container.get("restartCount") or 0)
    waiting = (state.get("waiting") or {}).get("reason", "")
    message = _why_it_ended(pod, last, own)
    loops = waiting == "CrashLoopBackOff" and restarts >= LOOP
    again = f" again and again ({restarts} {'restart' if restarts == 1 else 'restarts'})" if loops else ""
    return Finding(
        f"the container ended{again}: {message}",
        Trouble.CRASH_LOOP if loops else None,
        logs=pod["metadata"]["name"],
    )


def _why_it_ended(pod: Object, last: Object, own: Sequence[Told]) -> str:
    code, reason = last.get("exitCode"), last.get("reason", "")
    if reason == "OOMKilled":
        limit = _memory_limit(pod)
        return f"it ran out of memory{f' (limit {limit})' if limit else ''}; raise the memory limit"
    killed = next(
        (e.message for e in reversed(own) if e.reason == "Unhealthy" and "Readiness" not in e.message), None
    )
    if killed is not None and code in (137, 143):
        return f"it was stopped because {_cut(killed)}"
    if code == 0:
        return "it finished (exit code 0), and must go on running to serve"
    if code is None:
        return reason or "for a reason that the cluster does not tell"
    return f"exit code {code}{f' ({reason})' if reason and reason != 'Error' else ''}"


# -- reading ------------------------------------------------------------------------------------------------


def condition_of(object_: Object, type_: str) -> Object | None:
    conditions: Iterator[Object] = iter((object_.get("status") or {}).get("conditions") or ())
    return next((c for c in conditions if c.get("type") == type_), None)


def restarts_of(pod: Object) -> int:
    return int((_container_status(pod) or {}).get("restartCount") or 0)


def parse_time(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _time(text: str | None, pod: Object, now: datetime) -> datetime:
    """Else when the pod was made."""
    return parse_time(text) or parse_time(pod["metadata"].get("creationTimestamp")) or now


def _container_status(pod: Object) -> Object | None:
    """Of the model's container; sidecars of the cluster's own have no say. Init containers come first."""
    status = pod.get("status") or {}
    for init in status.get("initContainerStatuses") or ():
        waiting = ((init.get("state") or {}).get("waiting") or {}).get("reason", "")
        if waiting in IMAGE_REASONS | CONFIG_REASONS | {"CrashLoopBackOff"}:
            found: Object = init
            return found
    first = pod["spec"]["containers"][0]["name"]
    statuses: Sequence[Object] = status.get("containerStatuses") or ()
    return next((s for s in statuses if s.get("name") == first), statuses[0] if statuses else None)


def _memory_limit(pod: Object) -> str | None:
    resources = pod["spec"]["containers"][0].get("resources") or {}
    limit = (resources.get("limits") or {}).get("memory")
    return None if limit is None else str(limit)


def _cut(words: str) -> str:
    words = " ".join(words.split())
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}…"
