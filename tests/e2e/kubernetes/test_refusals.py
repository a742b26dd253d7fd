"""What a cluster cannot do is refused at the create, in the document's words, and nothing is kept of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any  # JSON of the API

import pytest

from moorage.testing.hub import HubStandIn
from moorage_kubernetes.testing import StandInCluster

from .conftest import BYOC, Port, port_on

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
MODEL = "moorage/digits"
RABBITMQ, REDIS = "amqp://rabbitmq.default.svc:5672", "redis://redis.default.svc:6379"
QUEUE = {"rabbitmq_url": RABBITMQ, "redis_url": REDIS}
ASYNC = {
    "async_deployment_type": "ASYNC",
    "autoscale_config": {"targets": [{"metric": "queue_length", "target": 20}]},
}


@pytest.fixture
async def hub_port(tmp_path: Path, cluster: StandInCluster) -> AsyncIterator[Port]:
    async with HubStandIn() as hub:
        await hub.add_repo(MODEL, DIGITS)
        async with port_on(tmp_path / "var", cluster, hub_url=hub.url) as found:
            yield found
            assert found.left() == [], "nothing is left"


async def body(port: Port, cluster: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "model_repo": await port.import_model(MODEL),
        "name": "digits-one",
        "cluster": cluster["uuid"],
        "nodegroups": await port.node_groups(cluster["uuid"]),
        "gpu_request": 0,
        "cpu_request": 1,
        "cpu_limit": 2,
        "memory_request": 1,
        "memory_limit": 2,
        "min_pod_replicas": 1,
        "max_pod_replicas": 3,
        "autoscale_config": {"targets": [{"metric": "cpu", "target": 80}]},
        **more,
    }


async def refused(port: Port, asked: dict[str, Any]) -> dict[str, str]:
    told: dict[str, str] = await port.ask("POST", BYOC, 400, json=asked)
    assert (await port.ask("GET", "/v1/deployments", 200))["items"] == []
    assert port.left() == []
    return told


@pytest.mark.parametrize(("missing", "tool"), [("rabbitmq_url", "RabbitMQ"), ("redis_url", "Redis")])
async def test_a_queue_needs_its_servers(hub_port: Port, missing: str, tool: str) -> None:
    there = {name: url for name, url in QUEUE.items() if name != missing}
    cluster = await hub_port.import_cluster(**there)
    told = await refused(hub_port, await body(hub_port, cluster, **ASYNC))
    assert told.keys() == {"async_deployment_type"}
    assert f"install {tool} on the cluster" in told["async_deployment_type"]
    assert missing in told["async_deployment_type"]


async def test_what_keda_does_is_refused_without_it_until_it_is_installed(hub_port: Port) -> None:
    hub_port.cluster.uninstall("keda")
    cluster = await hub_port.import_cluster(**QUEUE)
    asked = await body(hub_port, cluster, **ASYNC)
    told = await refused(hub_port, asked)
    assert told.keys() == {"autoscale_config"}
    assert told["autoscale_config"].startswith("targets[0].metric: metric queue_length needs keda")
    asleep = {**asked, "async_deployment_type": "SYNC", "scale_to_zero_enabled": True}
    asleep["autoscale_config"] = {"targets": [{"metric": "concurrency", "target": 4}]}
    assert (await refused(hub_port, asleep)).keys() == {"autoscale_config", "scale_to_zero_enabled"}

    hub_port.cluster.install("keda")
    await hub_port.ask("POST", f"/clusters/{cluster['uuid']}/check", 200)
    path = f"{BYOC}{(await hub_port.ask('POST', BYOC, 201, json=asked))['uuid']}/"
    await hub_port.until(path, "DEPLOYED")
    await hub_port.ask("DELETE", path, 204)
    await hub_port.until(path, "DELETED")


async def test_a_volume_that_no_storage_class_can_make(hub_port: Port) -> None:
    hub_port.cluster.add_storage_class("disks", provisioner="ebs.csi.aws.com")
    cluster = await hub_port.import_cluster()
    claim = {"mount_path": "/data", "size": "5", "storage_class": "disks"}
    asked = await body(hub_port, cluster, persistent_volume_claims=[claim])
    told = await refused(hub_port, asked)
    assert told.keys() == {"persistent_volume_claims"}
    assert "[0].access_mode" in told["persistent_volume_claims"]
    assert "cannot do ReadWriteMany; it can do ReadWriteOnce" in told["persistent_volume_claims"]


async def test_v1_names_the_fields_of_its_own(hub_port: Port) -> None:
    cluster = await hub_port.import_cluster(redis_url=REDIS)
    asked = {"hf_model_id": MODEL, "cluster": cluster["uuid"], "workload": {"queued": {"consumers": 2}}}
    told = await hub_port.ask("POST", "/v1/deployments", 422, json=asked)
    assert told["code"] == "does_not_fit"
    assert [(e["field"], e["rule"]) for e in told["errors"]] == [("body.workload.queued", "needs_rabbitmq")]
    assert "checked again" in told["advice"]
