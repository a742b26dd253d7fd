"""From an imported cluster and container to an answer, through every change, to nothing left."""

from __future__ import annotations

from typing import Any

from standardwebhooks import Webhook

from .conftest import BYOC, Port


def body(model: str, cluster: str, groups: list[str], **more: Any) -> dict[str, Any]:
    return {
        "model_repo": model,
        "name": "echo-one",
        "cluster": cluster,
        "nodegroups": groups,
        "cpu_request": 2,
        "cpu_limit": 4,
        "memory_request": 8,
        "memory_limit": 16,
        "min_pod_replicas": 1,
        "max_pod_replicas": 3,
        "autoscale_config": {"targets": [{"metric": "gpu", "target": 80}]},
        "ports": {"http": {"port": 8200}},
        "healthcheck": {"path": "/health", "port": 8200, "initialDelaySeconds": 0, "periodSeconds": 1},
        **more,
    }


async def test_the_whole_way(port: Port) -> None:
    secret = (await port.ask("GET", "/v1/webhook-secret", 200))["secret"]
    cluster = await port.import_cluster()
    model = await port.import_container()
    groups = await port.node_groups(cluster["uuid"])

    asked = body(model, cluster["uuid"], groups, webhook_url=port.hook)
    created = await port.ask("POST", BYOC, 201, json=asked)
    path = f"{BYOC}{created['uuid']}/"
    shown = await port.until(path, "DEPLOYED")

    answer = await port.user.post("/v1/models/echo-one/infer", json={"inputs": "hello"})
    assert answer.status_code == 200, answer.text
    assert "hello" in answer.text

    await port.ask("POST", f"{path}scale/", 200, json={"min_pod_replicas": 2, "max_pod_replicas": 3})
    await port.cluster.came(lambda: len(running_pods(port)) == 2 or None)
    await port.until(path, "DEPLOYED")

    await port.ask("POST", f"{path}stop/", 200)
    await port.until(path, "STOPPED")
    await port.cluster.came(lambda: running_pods(port) == [] or None)
    assert (await port.user.post("/v1/models/echo-one/infer", json={"inputs": 1})).status_code == 503

    await port.ask("POST", f"{path}start/", 200)
    await port.until(path, "DEPLOYED")
    assert (await port.user.post("/v1/models/echo-one/infer", json={"inputs": 1})).status_code == 200

    await port.ask("DELETE", path, 204)
    await port.until(path, "DELETED")
    assert port.left() == []
    assert shown["uuid"] == created["uuid"]
    await port.told("deployment.deleted")
    for headers, content in port.messages:
        Webhook(secret).verify(content, dict(headers))
    assert "deployment.ready" in port.types()


def running_pods(port: Port) -> list[str]:
    pods = port.cluster.objects("pods")
    return [p["metadata"]["name"] for p in pods if "deletionTimestamp" not in p["metadata"]]
