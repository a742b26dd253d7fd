"""Server-side apply: who holds which field, what conflicts, what goes."""

from __future__ import annotations

from moorage_kubernetes.testing import StandInCluster

from .asking import APPLY, Api, deployment, refused, scaled_object, service


async def test_it_creates_and_then_updates(cluster: StandInCluster, api: Api) -> None:
    made = await api.apply(deployment(replicas=1))
    assert [r.status for r in cluster.requests] == [201]
    assert made.metadata.generation == 1
    assert made.spec.strategy.rolling_update.max_surge == "25%"  # a default of the server
    again = await api.apply(deployment(replicas=1))
    assert cluster.requests[-1].status == 200
    assert again.metadata.generation == 1
    more = await api.apply(deployment(replicas=3))
    assert (more.metadata.generation, more.spec.replicas, more.metadata.uid) == (2, 3, made.metadata.uid)


async def test_nothing_new_is_no_new_revision(cluster: StandInCluster, api: Api) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    revisions = set()
    for _ in range(3):
        made = await api.core.patch_namespaced_config_map(
            "c", "default", body, field_manager="moorage", _content_type=APPLY
        )
        revisions.add(made.metadata.resource_version)
    assert len(revisions) == 1


async def test_a_field_that_is_no_longer_said_goes(api: Api) -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    await api.apply(deployment(container={"env": env, "args": ["x"]}, nodeSelector={"a": "b"}))
    made = await api.apply(deployment(container={"env": env[1:]}))
    [container] = made.spec.template.spec.containers
    assert [one.name for one in container.env] == ["B"]
    assert container.args is None
    assert made.spec.template.spec.node_selector is None


async def test_another_manager_is_not_overrun(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment(replicas=1), "kubectl")
    status = await refused(api.apply(deployment(replicas=2), force=False))
    assert (status["code"], status["reason"]) == (409, "Conflict")
    assert status["message"] == (
        'Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas'
    )
    assert status["details"]["causes"][0]["field"] == ".spec.replicas"
    taken = await api.apply(deployment(replicas=2), force=True)
    assert taken.spec.replicas == 2
    # kubectl holds it no more, so that its own apply without it leaves it
    left = await api.apply(deployment(replicas=None), "kubectl", force=False)
    assert left.spec.replicas == 2


async def test_what_two_hold_stays_when_one_lets_go(api: Api) -> None:
    await api.apply(deployment(replicas=2), "a")
    await api.apply(deployment(replicas=2), "b", force=False)
    assert (await api.apply(deployment(replicas=None), "a")).spec.replicas == 2
    # nobody holds it now: it goes, and the default comes back
    assert (await api.apply(deployment(replicas=None), "b")).spec.replicas == 1


async def test_an_autoscaler_takes_replicas_over(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment(replicas=None))
    scale = {"spec": {"replicas": 4}}
    await api.apps.patch_namespaced_deployment_scale("web", "default", scale, field_manager="hpa")
    assert (await api.apply(deployment(replicas=None))).spec.replicas == 4
    status = await refused(api.apply(deployment(replicas=1), force=False))
    assert 'conflict with "hpa"' in status["message"]


async def test_managed_fields_are_told(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment())
    [entry] = cluster.object("deployments", "web", "default")["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("moorage", "Apply")
    containers = entry["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert containers['k:{"name":"server"}']["f:image"] == {}


async def test_ports_are_one_list_by_port_and_protocol(api: Api) -> None:
    body = service()
    send = api.core.patch_namespaced_service
    await send("web", "default", body, field_manager="moorage", _content_type=APPLY)
    other = service()
    other["spec"] = {"ports": [{"name": "metrics", "port": 9090, "protocol": "TCP"}]}
    made = await send("web", "default", other, field_manager="metrics", _content_type=APPLY)
    assert sorted(port.port for port in made.spec.ports) == [80, 9090]
    again = await send("web", "default", body, field_manager="moorage", _content_type=APPLY)
    assert len(again.spec.ports) == 2


async def test_what_an_apply_must_say(cluster: StandInCluster, api: Api) -> None:
    send = api.apps.patch_namespaced_deployment
    status = await refused(send("web", "default", deployment(), _content_type=APPLY))
    assert "fieldManager: Required value" in status["message"]
    wrong = deployment() | {"kind": "StatefulSet"}
    status = await refused(send("web", "default", wrong, field_manager="m", _content_type=APPLY))
    assert status["code"] == 400
    unknown = deployment()
    unknown["spec"]["template"]["spec"]["nodeAffinity"] = {}
    status = await refused(send("web", "default", unknown, field_manager="m", _content_type=APPLY))
    assert status["code"] == 500  # as a real server answers it
    assert status["message"].endswith(".spec.template.spec.nodeAffinity: field not declared in schema")
    assert [r.name for r in cluster.refused][-1].startswith("PATCH ")


async def test_custom_objects_are_applied(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment())
    args = ("keda.sh", "v1alpha1", "default", "scaledobjects", "web")
    for most in (3, 4):
        await api.custom.patch_namespaced_custom_object(
            *args, scaled_object(maxReplicaCount=most), field_manager="moorage", _content_type=APPLY
        )
    assert [r.status for r in cluster.requests if "keda.sh" in r.path] == [201, 200]
    found = await api.custom.get_namespaced_custom_object(*args)
    assert found["spec"]["maxReplicaCount"] == 4
