"""A deployment that scales to zero sleeps, is woken by a request, and sleeps again, whatever restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any  # JSON of the API, and of Kubernetes

from moorage_kubernetes.testing import StandInCluster

from .conftest import BYOC, Port, port_on
from .test_life import body, running_pods

INFER = "/v1/models/echo-one/infer"
FORCED = "autoscaling.keda.sh/force-activation"
SLEEPY: dict[str, Any] = {
    "scale_to_zero_enabled": True,
    "autoscale_config": {
        "targets": [{"metric": "concurrency", "target": 4}],
        "cooldown_period": 60,  # of the cluster's seconds, which are short
    },
    "persistent_volume_claims": [{"mount_path": "/data", "size": "1", "access_mode": "ReadWriteOnce"}],
}


async def deployed(port: Port) -> str:
    """Where it is."""
    cluster = await port.import_cluster()
    groups = await port.node_groups(cluster["uuid"])
    asked = body(await port.import_container(), cluster["uuid"], groups, **SLEEPY)
    created = await port.ask("POST", BYOC, 201, json=asked)
    path = f"{BYOC}{created['uuid']}/"
    await port.until(path, "DEPLOYED")
    return path


def scaled(port: Port) -> dict[str, Any]:
    (found,) = port.cluster.objects("scaledobjects")
    return found


def forced(port: Port) -> bool:
    return FORCED in scaled(port)["metadata"].get("annotations", {})


async def fall_asleep(port: Port, path: str) -> None:
    """Nobody asks any more, and KEDA lets the last replica go."""
    name = scaled(port)["metadata"]["name"]
    port.cluster.set_active(name, True)
    await port.cluster.came(lambda: active(port) or None)
    port.cluster.set_active(name, False)
    await port.cluster.came(lambda: running_pods(port) == [] or None)
    await port.until(path, "STOPPED")
    (found,) = (await port.ask("GET", "/v1/deployments", 200))["items"]
    assert found["status"] == "hibernated"


def active(port: Port) -> bool:
    conditions = scaled(port).get("status", {}).get("conditions", ())
    return any(each["type"] == "Active" and each["status"] == "True" for each in conditions)


async def wake_by_asking(port: Port) -> None:
    asking = asyncio.create_task(port.user.post(INFER, json={"inputs": "hello"}))
    await port.cluster.came(lambda: forced(port) or None)
    answer = await asking
    assert answer.status_code == 200, answer.text
    assert "hello" in answer.text
    await port.cluster.came(lambda: not forced(port) or None)


async def test_it_sleeps_wakes_by_a_request_and_sleeps_again(port: Port) -> None:
    path = await deployed(port)
    for _ in range(2):
        await fall_asleep(port, path)
        assert [each["metadata"]["name"] for each in port.cluster.objects("persistentvolumeclaims")] == [
            "pvc-data"
        ]
        assert [e for e in port.left() if e.startswith("services/")], "it keeps its address"
        await wake_by_asking(port)
    await port.ask("DELETE", path, 204)
    await port.until(path, "DELETED")


async def test_it_is_woken_after_the_service_was_restarted(tmp_path: Path, cluster: StandInCluster) -> None:
    async with port_on(tmp_path / "var", cluster) as before:
        path = await deployed(before)
        await fall_asleep(before, path)
    async with port_on(tmp_path / "var", cluster) as port:
        await wake_by_asking(port)
        assert (await port.user.post(INFER, json={"inputs": "again"})).status_code == 200
        await port.ask("DELETE", path, 204)
        await port.until(path, "DELETED")
        assert port.left() == []
