"""A queue is removed by its front before the deployment is: step by step, whoever takes the next one."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any  # Kubernetes objects

import pytest

from moorage.domain.deployment import Handle
from moorage.domain.workload import Autoscale, Metric, Queued, ScalingTarget
from moorage.ports.provider import Absent, Credentials
from moorage_kubernetes import marks
from moorage_kubernetes.queue_removal import DEADLINE_SECONDS, is_over, to_removal

from . import plans
from .conftest import House
from .looking import serves, until


def front(face: str = "queue_front", *, there: int = 1, **status: object) -> dict[str, Any]:
    env = [
        {"name": "MOORAGE_QUEUE_URL", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "MOORAGE_WORKER_FACE", "value": face},
    ]
    containers = [{"name": "model", "image": "a", "env": env}]
    spec = {"replicas": there, "template": {"spec": {"containers": containers}}}
    told = {"observedGeneration": 3, **status}
    return {"metadata": {"generation": 3}, "spec": spec, "status": told}


@pytest.mark.parametrize("replicas", [0, 1])
def test_the_front_is_given_another_face_and_nothing_else(replicas: int) -> None:
    found = front(there=replicas)
    change = to_removal(found)
    assert change is not None
    spec = change["spec"]
    assert spec["replicas"] == 1
    assert spec["progressDeadlineSeconds"] == DEADLINE_SECONDS
    assert spec["strategy"] == {"type": "Recreate", "rollingUpdate": None}, "the front goes first"
    assert spec["template"]["spec"] == front("queue_removal")["spec"]["template"]["spec"]
    assert found == front(there=replicas), "what was read stays as it was"


def test_what_was_begun_is_not_begun_again() -> None:
    assert to_removal(front("queue_removal")) is None


@pytest.mark.parametrize(
    ("status", "over"),
    [
        ({}, False),
        ({"replicas": 1, "updatedReplicas": 1}, False),
        ({"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}, True),
        ({"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}, False),
        ({"replicas": 1, "readyReplicas": 1}, False),
        ({"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "observedGeneration": 2}, False),
        ({"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}, True),
        ({"conditions": [{"type": "Progressing", "reason": "NewReplicaSetCreated"}]}, False),
    ],
)
def test_it_is_over_when_the_new_pod_is_ready_or_its_deadline_has_passed(
    status: dict[str, Any], over: bool
) -> None:
    assert is_over(front("queue_removal", **status)) is over


# -- on a cluster -----------------------------------------------------------------------------------------


async def queued(house: House, name: str) -> tuple[Handle, Credentials]:
    """An endpoint that serves."""
    addresses = {"rabbitmq_url": "amqp://rabbitmq.default:5672", "redis_url": "redis://redis.default:6379"}
    credentials = Credentials(house.cluster.values(**addresses))
    scaling = Autoscale((ScalingTarget(Metric.QUEUE_LENGTH, 10),))
    work = replace(plans.workload(queued=Queued(), autoscale=scaling), ports=None, health=None)
    provider = house.provider()
    handle = await provider.create(plans.plan(workload=work, max_replicas=3), name, credentials)
    await until(provider, handle, credentials, serves)
    return handle, credentials


def faces(house: House) -> list[str]:
    """Of the pods that are there, which say by it what they do."""
    return sorted(
        entry["value"]
        for pod in house.cluster.objects("pods", plans.NAMESPACE)
        for entry in pod["spec"]["containers"][0]["env"]
        if entry["name"] == "MOORAGE_WORKER_FACE"
    )


async def removed(house: House, handle: Handle, credentials: Credentials) -> list[list[str]]:
    """Each step by a process of its own. What pods were there after each."""
    seen: list[list[str]] = []
    for _ in range(100):
        provider = house.provider()
        answer = await provider.delete(handle, credentials)
        if isinstance(answer, Absent):
            return seen
        seen.append(faces(house))
        with contextlib.suppress(TimeoutError):
            await house.cluster.came(lambda: faces(house) != seen[-1] or None, seconds=answer.after)
        seen.append(faces(house))
    raise AssertionError(seen)


async def test_nobody_makes_the_queue_anew_while_it_is_removed(house: House, name: str) -> None:
    handle, credentials = await queued(house, name)
    assert faces(house) == ["queue", "queue_front"]
    seen = await removed(house, handle, credentials)
    assert ["queue_removal"] in seen
    assert not [each for each in seen if "queue_removal" in each and len(each) > 1]
    assert house.left() == {}


async def test_the_queue_of_what_was_stopped_is_removed_too(house: House, name: str) -> None:
    handle, credentials = await queued(house, name)
    provider = house.provider()
    while not isinstance(await provider.stop(handle, credentials), Absent):
        await house.cluster.came(lambda: faces(house) == [] or None)
    assert ["queue_removal"] in await removed(house, handle, credentials)


async def test_a_queue_that_cannot_be_removed_stands_in_nobodys_way(house: House, name: str) -> None:
    handle, credentials = await queued(house, name)
    house.cluster.faults.crash_loop = frozenset({f"{marks.front_name(name)}*"})
    house.cluster.faults.progress_deadline = frozenset({marks.front_name(name)})
    await removed(house, handle, credentials)
    assert house.left() == {}
