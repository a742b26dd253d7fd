"""A pod's status, built from what its containers do."""

from __future__ import annotations

from dataclasses import dataclass, field

from moorage_kubernetes.testing.clock import now
from moorage_kubernetes.testing.controllers.owners import kept
from moorage_kubernetes.testing.statuses import Json

ADDRESS = "10.244.0.1"


@dataclass(slots=True)
class Containers:
    """What all containers of a pod do: they go through it together. `state` is one of the API's three."""

    state: Json = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Json = field(default_factory=dict)
    restarts: int = 0
    started: bool = False
    ready: bool = False
    phase: str = "Pending"
    since: str = field(default_factory=now)

    def waits(self, reason: str, message: str = "") -> None:
        self.state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        self.started = self.ready = False

    def runs(self) -> None:
        self.state = {"running": {"startedAt": now()}}
        self.phase = "Running"
        self.started = self.ready = False

    def ended(self, code: int, reason: str, message: str = "") -> None:
        begun = self.state.get("running", {}).get("startedAt", now())
        over = {"exitCode": code, "reason": reason, "startedAt": begun, "finishedAt": now()}
        self.state = {"terminated": {**over, **({"message": message} if message else {})}}
        self.last = self.state
        self.started = self.ready = False


def status_of(pod: Json, containers: Containers) -> Json:
    before = pod.get("status") or {}
    names = [one["name"] for one in pod["spec"]["containers"]]
    moment = now()
    unready = "" if containers.ready else f"containers with unready status: [{' '.join(names)}]"
    conditions = [one for one in before.get("conditions") or () if one["type"] == "PodScheduled"]
    for kind, status in (
        ("Initialized", True),
        ("Ready", containers.ready),
        ("ContainersReady", containers.ready),
    ):
        one: Json = {
            "type": kind,
            "status": "True" if status else "False",
            "lastProbeTime": None,
            "lastTransitionTime": moment,
        }
        if not status:
            one |= {"reason": "ContainersNotReady", "message": unready}
        conditions.append(one)
    running = "running" in containers.state
    return {
        **before,
        "phase": containers.phase,
        "conditions": kept(before.get("conditions") or [], conditions),
        "hostIP": "127.0.0.1",
        "startTime": containers.since,
        **({"podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]} if containers.phase == "Running" else {}),
        "containerStatuses": [
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": f"{one['image']}@stand-in" if running else "",
                "ready": containers.ready,
                "started": containers.started,
                "restartCount": containers.restarts,
                "state": containers.state,
                "lastState": containers.last,
            }
            for one in pod["spec"]["containers"]
        ],
    }
