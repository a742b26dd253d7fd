"""Every way in which pods fail is told apart, with its cause, on a cluster that fails on demand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorage.domain.model import ContainerImage
from moorage.domain.observation import Observation, ReplicaState, Trouble
from moorage.domain.workload import AccessMode, Volume
from moorage.errors import Rejected
from moorage.ports.provider import RevisionPlan
from moorage.testing.provider_contract import until_absent
from moorage_kubernetes.testing import StandInCluster

from . import plans
from .conftest import House
from .looking import serves, troubled, until

GIB = 1024**3
SOON = {"CAPACITY_PATIENCE_SECONDS": "0.2", "VOLUME_PATIENCE_SECONDS": "0.2"}
DATA = Volume("data", "/data", GIB, AccessMode.READ_WRITE_ONCE)


async def seen_to_fail(house: House, name: str, plan: RevisionPlan | None = None) -> Observation:
    provider = house.provider(**SOON)
    handle = await provider.create(plan or plans.plan(), name, house.credentials)
    return await until(provider, handle, house.credentials, troubled)


async def test_too_few_gpus_are_no_capacity(house: House, name: str) -> None:
    seen = await seen_to_fail(house, name, plans.plan(gpus=1))
    assert seen.trouble is Trouble.NO_CAPACITY
    assert seen.message is not None
    assert "not enough GPUs" in seen.message
    assert "Insufficient nvidia.com/gpu" in seen.message


async def test_a_node_group_without_nodes_is_no_capacity(house: House, name: str) -> None:
    house.cluster.remove_node("node-1")
    house.cluster.add_node("another", {"pool": "another"})
    seen = await seen_to_fail(house, name)
    assert seen.trouble is Trouble.NO_CAPACITY
    assert "no node belongs to its node group" in (seen.message or "")


async def test_a_pod_that_waits_for_a_node_is_not_given_up_at_once(house: House, name: str) -> None:
    provider = house.provider()  # with its usual patience
    handle = await provider.create(plans.plan(gpus=1), name, house.credentials)
    seen = await until(provider, handle, house.credentials, lambda s: s.stage == "queued" and s.message)
    assert seen.trouble is None
    house.cluster.add_node("gpus", plans.GROUP, gpus=1)
    assert await until(provider, handle, house.credentials, serves)


async def test_an_image_that_cannot_be_pulled_is_rejected(house: House, name: str) -> None:
    house.cluster.faults.image_pull = frozenset({"*"})
    seen = await seen_to_fail(house, name)
    assert seen.trouble is Trouble.REJECTED
    assert "the image cannot be pulled" in (seen.message or "")
    assert "not found" in (seen.message or "")


async def test_an_image_reference_that_is_none_is_rejected(house: House, name: str) -> None:
    plan = replace(plans.image_plan(), source=ContainerImage("Not An Image"))
    seen = await seen_to_fail(house, name, plan)
    assert seen.trouble is Trouble.REJECTED
    assert "InvalidImageName" in (seen.message or "")


async def test_a_configuration_that_cannot_be_had_is_rejected(house: House, name: str) -> None:
    house.cluster.faults.config_error = frozenset({"*"})
    seen = await seen_to_fail(house, name)
    assert seen.trouble is Trouble.REJECTED
    assert 'CreateContainerConfigError): secret "missing" not found' in (seen.message or "")


async def test_a_crash_loop_is_told_with_its_last_lines(house: House, name: str) -> None:
    house.cluster.faults.crash_loop = frozenset({"*"})
    seen = await seen_to_fail(house, name)
    assert seen.trouble is Trouble.CRASH_LOOP
    assert "exit code 1" in (seen.message or "")
    assert seen.log_tail[-1] == "ModuleNotFoundError: No module named 'weights'"


async def test_out_of_memory_is_told_as_such(house: House, name: str) -> None:
    house.cluster.faults.oom_killed = frozenset({"*"})
    seen = await seen_to_fail(house, name, plans.image_plan())
    assert seen.trouble is Trouble.CRASH_LOOP
    assert "ran out of memory (limit 2Gi)" in (seen.message or "")


async def test_a_quota_that_is_used_up_is_no_capacity(house: House, name: str) -> None:
    house.cluster.faults.quota = frozenset({"*"})
    seen = await seen_to_fail(house, name)
    assert seen.trouble is Trouble.NO_CAPACITY
    assert "exceeded quota" in (seen.message or "")


async def test_a_probe_that_fails_is_told_while_it_loads(house: House, name: str) -> None:
    house.cluster.faults.startup_probe = frozenset({"*"})
    provider = house.provider()
    handle = await provider.create(plans.plan(), name, house.credentials)
    seen = await until(provider, handle, house.credentials, lambda s: "probe failed" in (s.message or ""))
    assert seen.trouble is None
    assert seen.stage == "loading"
    house.cluster.faults.startup_probe = frozenset()
    assert await until(provider, handle, house.credentials, serves)


async def test_a_deadline_that_has_passed_ends_the_waiting(house: House, name: str) -> None:
    house.cluster.faults.readiness_probe = frozenset({"*"})
    house.cluster.faults.progress_deadline = frozenset({"*"})
    seen = await seen_to_fail(house, name)
    assert seen.trouble is Trouble.CRASH_LOOP
    assert "did not get ready in the time that it had" in (seen.message or "")


@pytest.mark.parametrize("fault", ["failed_mount", "failed_attach"])
async def test_a_volume_that_cannot_be_mounted_is_rejected(house: House, name: str, fault: str) -> None:
    house.cluster.add_storage_class("disks", default=True)
    setattr(house.cluster.faults, fault, frozenset({"*"}))
    seen = await seen_to_fail(house, name, plans.image_plan(volumes=(DATA,)))
    assert seen.trouble is Trouble.REJECTED
    assert "a volume cannot be used" in (seen.message or "")


async def test_a_volume_that_is_not_provisioned_is_rejected(house: House, name: str) -> None:
    house.cluster.add_storage_class("disks", default=True)
    house.cluster.faults.provisioning = frozenset({"*"})
    seen = await seen_to_fail(house, name, plans.image_plan(volumes=(DATA,)))
    assert seen.trouble is Trouble.REJECTED
    assert "a persistent volume is missing" in (seen.message or "")


@pytest.mark.parametrize("fault", ["admission_forbidden", "admission_invalid"])
async def test_admission_of_the_cluster_refuses_with_its_own_words(
    house: House, name: str, fault: str
) -> None:
    setattr(house.cluster.faults, fault, frozenset({"deployments/*"}))
    provider = house.provider()
    with pytest.raises(Rejected, match="not allowed here"):
        await provider.create(plans.plan(), name, house.credentials)
    house.cluster.world.faults.clear()
    found = await provider.find(name, house.credentials)
    assert found is not None  # what was made before the refusal
    await until_absent(provider, found, house.credentials, 10)
    assert house.left() == {}
    house.cluster.refused.clear()  # the refusal that was asked for


async def test_pods_that_admission_refuses_are_told_with_its_words(house: House, name: str) -> None:
    house.cluster.faults.admission_forbidden = frozenset({"pods/*"})
    seen = await seen_to_fail(house, name)
    assert seen.trouble is Trouble.REJECTED
    assert "not allowed here" in (seen.message or "")


async def test_a_cluster_without_kubelets_leaves_pods_pending_and_says_so(house: House, name: str) -> None:
    house.cluster.faults.no_kubelet = True
    provider = house.provider()
    handle = await provider.create(plans.plan(), name, house.credentials)
    seen = await until(provider, handle, house.credentials, lambda s: "node-1" in (s.message or ""))
    assert seen.trouble is None
    assert [r.state for r in seen.replicas] == [ReplicaState.STARTING]
    assert seen.message == "node node-1 has not begun with the pod"


async def test_one_replica_in_trouble_beside_one_that_serves_is_a_remark(
    house: House, name: str, stand_in: StandInCluster
) -> None:
    provider = house.provider()
    handle = await provider.create(plans.plan(), name, house.credentials)
    await until(provider, handle, house.credentials, serves)
    (first,) = stand_in.objects("pods", plans.NAMESPACE)
    await provider.apply(handle, plans.plan(replicas=2), house.credentials)
    other = await stand_in.came(
        lambda: next(
            (
                p["metadata"]["name"]
                for p in stand_in.objects("pods", plans.NAMESPACE)
                if p["metadata"]["name"] != first["metadata"]["name"]
            ),
            None,
        )
    )
    stand_in.faults.crash_loop = frozenset({other})
    seen = await until(provider, handle, house.credentials, lambda s: "again and again" in (s.message or ""))
    assert seen.trouble is None
    assert len(seen.targets) == 1
    assert {r.state for r in seen.replicas} == {ReplicaState.READY, ReplicaState.RESTARTING}
