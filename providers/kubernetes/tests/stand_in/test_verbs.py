"""Reading and writing objects as a server does it: revisions, locks, patches, selectors, pages, deletion."""

from __future__ import annotations

import base64

import pytest
from kubernetes_asyncio import client

from moorage_kubernetes.testing import StandInCluster

from .asking import MERGE, Api, Json, claim, deployment, ready, refused, service


async def test_the_life_of_an_object(cluster: StandInCluster, api: Api) -> None:
    body = {"metadata": {"name": "c", "labels": {"a": "1"}}, "data": {"k": "v"}}
    made = await api.core.create_namespaced_config_map("default", body)
    assert made.metadata.uid
    assert made.metadata.creation_timestamp
    assert made.metadata.generation is None
    again = await refused(api.core.create_namespaced_config_map("default", body))
    assert (again["code"], again["reason"]) == (409, "AlreadyExists")
    found = await api.core.read_namespaced_config_map("c", "default")
    found.data["k"] = "w"
    changed = await api.core.replace_namespaced_config_map("c", "default", found)
    assert int(changed.metadata.resource_version) > int(made.metadata.resource_version)
    stale = await refused(api.core.replace_namespaced_config_map("c", "default", made))
    assert (stale["code"], stale["reason"]) == (409, "Conflict")
    assert stale["message"].endswith("please apply your changes to the latest version and try again")
    gone = await api.core.delete_namespaced_config_map("c", "default")
    assert gone.status == "Success"
    status = await refused(api.core.read_namespaced_config_map("c", "default"))
    assert (status["code"], status["reason"]) == (404, "NotFound")
    assert status["message"] == 'configmaps "c" not found'
    status = await refused(api.core.delete_namespaced_config_map("c", "default"))
    assert status["code"] == 404


async def test_generation_counts_changes_of_the_spec(api: Api) -> None:
    await api.apps.create_namespaced_deployment("default", deployment(replicas=0))
    labelled = await api.apps.patch_namespaced_deployment(
        "web", "default", {"metadata": {"labels": {"x": "y"}}}
    )
    assert labelled.metadata.generation == 1
    scaled = await api.apps.patch_namespaced_deployment("web", "default", {"spec": {"minReadySeconds": 3}})
    assert scaled.metadata.generation == 2


async def test_strategic_merge_unites_by_name(api: Api) -> None:
    await api.apps.create_namespaced_deployment("default", deployment(replicas=0))
    change = {"containers": [{"name": "server", "env": [{"name": "A", "value": "1"}]}]}
    patch = {"spec": {"template": {"spec": change}}}
    made = await api.apps.patch_namespaced_deployment("web", "default", patch)
    [container] = made.spec.template.spec.containers
    assert (container.image, container.env[0].name) == ("acme/web:1", "A")
    drop: Json = {"containers": [{"name": "server", "env": [{"name": "A", "$patch": "delete"}]}]}
    made = await api.apps.patch_namespaced_deployment(
        "web", "default", {"spec": {"template": {"spec": drop}}}
    )
    assert not made.spec.template.spec.containers[0].env


async def test_merge_and_json_patches(cluster: StandInCluster, api: Api) -> None:
    await api.core.create_namespaced_config_map("default", {"metadata": {"name": "c"}, "data": {"a": "1"}})
    merge = {"data": {"a": None, "b": "2"}}
    made = await api.core.patch_namespaced_config_map("c", "default", merge, _content_type=MERGE)
    assert made.data == {"b": "2"}
    operations: list[Json] = [
        {"op": "test", "path": "/data/b", "value": "2"},
        {"op": "add", "path": "/data/c", "value": "3"},
        {"op": "move", "from": "/data/b", "path": "/data/d"},
        {"op": "copy", "from": "/data/c", "path": "/data/e"},
        {"op": "remove", "path": "/data/c"},
    ]
    made = await api.core.patch_namespaced_config_map("c", "default", operations)
    assert made.data == {"d": "2", "e": "3"}
    assert cluster.requests[-1].content_type == "application/json-patch+json"
    wrong = [{"op": "test", "path": "/data/d", "value": "9"}]
    assert (await refused(api.core.patch_namespaced_config_map("c", "default", wrong)))["code"] == 422
    status = await refused(
        api.core.patch_namespaced_config_map("c", "default", merge, _content_type="application/json")
    )
    assert status["reason"] == "UnsupportedMediaType"


async def test_a_patch_with_a_stale_revision(api: Api) -> None:
    made = await api.core.create_namespaced_config_map("default", {"metadata": {"name": "c"}})
    await api.core.patch_namespaced_config_map("c", "default", {"data": {"a": "1"}})
    patch = {"metadata": {"resourceVersion": made.metadata.resource_version}, "data": {"a": "2"}}
    assert (await refused(api.core.patch_namespaced_config_map("c", "default", patch)))[
        "reason"
    ] == "Conflict"


async def test_status_and_spec_are_apart(cluster: StandInCluster, api: Api) -> None:
    await api.core.create_namespaced_service("default", service())
    sent: Json = {"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}
    made = await api.core.patch_namespaced_service("web", "default", sent)
    assert made.status.load_balancer.ingress is None
    sent["spec"] = {"sessionAffinity": "ClientIP"}
    made = await api.core.patch_namespaced_service_status("web", "default", sent)
    assert made.status.load_balancer.ingress[0].ip == "1.2.3.4"
    assert made.spec.session_affinity == "None"


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("a=1", ["one"]),
        ("a!=1", ["three", "two"]),
        ("a in (1,2)", ["one", "two"]),
        ("a notin (1, 2),b", ["three"]),
        ("!b", ["one", "two"]),
        ("a==2,!b", ["two"]),
    ],
)
async def test_label_selectors(cluster: StandInCluster, api: Api, selector: str, names: list[str]) -> None:
    for name, labels in (("one", {"a": "1"}), ("two", {"a": "2"}), ("three", {"b": "x"})):
        meta = {"name": name, "labels": labels, "namespace": "default"}
        cluster.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    found = await api.core.list_namespaced_config_map("default", label_selector=selector)
    assert [one.metadata.name for one in found.items] == names


async def test_field_selectors(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment(replicas=2))
    await ready(cluster, count=2)
    name = cluster.objects("pods")[0]["metadata"]["name"]
    found = await api.core.list_namespaced_pod("default", field_selector=f"metadata.name={name}")
    assert len(found.items) == 1
    found = await api.core.list_namespaced_pod("default", field_selector="status.phase!=Running")
    assert found.items == []
    found = await api.core.list_namespaced_event(
        "default", field_selector=f"involvedObject.name={name},reason=Started"
    )
    assert [one.reason for one in found.items] == ["Started"]
    status = await refused(api.core.list_namespaced_pod("default", field_selector="spec.priority=1"))
    assert status["message"] == 'field label not supported: "spec.priority"'
    status = await refused(api.core.list_namespaced_pod("default", label_selector="a in 1"))
    assert status["code"] == 400


async def test_lists_in_pages(cluster: StandInCluster, api: Api) -> None:
    for number in range(5):
        meta = {"name": f"c{number}", "namespace": "default"}
        cluster.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    names, token = [], None
    for _ in range(3):
        page = await api.core.list_namespaced_config_map("default", limit=2, _continue=token)
        names += [one.metadata.name for one in page.items]
        token = page.metadata._continue
    assert names == [f"c{number}" for number in range(5)]
    assert token is None
    first = await api.core.list_namespaced_config_map("default", limit=2)
    assert first.metadata.remaining_item_count == 3
    cluster.compact()
    status = await refused(
        api.core.list_namespaced_config_map("default", limit=2, _continue=first.metadata._continue)
    )
    assert (status["code"], status["reason"]) == (410, "Expired")


async def test_what_it_owns_goes_with_the_owner(cluster: StandInCluster, api: Api) -> None:
    made = await api.apply(deployment())
    owned = service()
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": made.metadata.uid}
    owned["metadata"]["ownerReferences"] = [owner]
    await api.core.create_namespaced_service("default", owned)
    await ready(cluster)
    await api.apps.delete_namespaced_deployment("web", "default")
    await cluster.came(lambda: not any(map(cluster.objects, ("services", "replicasets", "pods"))))


async def test_what_names_an_owner_that_is_not_there_goes(cluster: StandInCluster, api: Api) -> None:
    owned = service()
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "gone"}
    owned["metadata"]["ownerReferences"] = [owner]
    await api.core.create_namespaced_service("default", owned)
    await cluster.came(lambda: not cluster.objects("services"))


async def test_foreground_and_orphan(cluster: StandInCluster, api: Api) -> None:
    await api.apply(deployment())
    await ready(cluster)
    answer = await api.apps.delete_namespaced_deployment("web", "default", propagation_policy="Foreground")
    assert answer.metadata is not None
    await cluster.came(lambda: not cluster.objects("deployments"))
    assert cluster.objects("pods") == []
    await api.apply(deployment())
    await ready(cluster)
    options = client.V1DeleteOptions(propagation_policy="Orphan")
    await api.apps.delete_namespaced_deployment("web", "default", body=options)
    [held] = cluster.objects("replicasets")
    assert held["metadata"]["ownerReferences"] == []
    assert len(cluster.objects("pods")) == 1


async def test_preconditions_and_collections(cluster: StandInCluster, api: Api) -> None:
    for name in ("a", "b", "c"):
        meta = {"name": name, "namespace": "default", "labels": {"keep": str(name == "c")}}
        cluster.add({"apiVersion": "v1", "kind": "Secret", "metadata": meta})
    options = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="other"))
    status = await refused(api.core.delete_namespaced_secret("a", "default", body=options))
    assert (status["code"], status["reason"]) == (409, "Conflict")
    await api.core.delete_collection_namespaced_secret("default", label_selector="keep!=True")
    assert [one["metadata"]["name"] for one in cluster.objects("secrets")] == ["c"]


async def test_finalizers_hold_an_object(cluster: StandInCluster, api: Api) -> None:
    body = {"metadata": {"name": "c", "finalizers": ["moorage.io/hold"]}}
    await api.core.create_namespaced_config_map("default", body)
    await api.core.delete_namespaced_config_map("c", "default")
    held = await api.core.read_namespaced_config_map("c", "default")
    assert held.metadata.deletion_timestamp
    await api.core.patch_namespaced_config_map(
        "c", "default", {"metadata": {"finalizers": None}}, _content_type=MERGE
    )
    assert cluster.objects("configmaps", "default") == []


async def test_namespaces(cluster: StandInCluster, api: Api) -> None:
    status = await refused(api.core.create_namespaced_config_map("acme", {"metadata": {"name": "c"}}))
    assert status["message"] == 'namespaces "acme" not found'
    await api.core.create_namespace({"metadata": {"name": "acme"}})
    held = {"metadata": {"name": "c", "finalizers": ["moorage.io/hold"]}}
    await api.core.create_namespaced_config_map("acme", held)
    await api.core.create_namespaced_persistent_volume_claim("acme", claim("data"))
    await cluster.came(lambda: cluster.objects("serviceaccounts", "acme"))
    await api.core.delete_namespace("acme")
    assert cluster.object("namespaces", "acme")["status"]["phase"] == "Terminating"
    status = await refused(api.core.create_namespaced_config_map("acme", {"metadata": {"name": "d"}}))
    assert "because it is being terminated" in status["message"]
    await api.core.patch_namespaced_config_map(
        "c", "acme", {"metadata": {"finalizers": None}}, _content_type=MERGE
    )
    await cluster.came(lambda: "acme" not in [n["metadata"]["name"] for n in cluster.objects("namespaces")])
    assert cluster.objects("configmaps", "acme") == []
    assert cluster.objects("persistentvolumes") == []


async def test_dry_runs_change_nothing(cluster: StandInCluster, api: Api) -> None:
    made = await api.apps.create_namespaced_deployment("default", deployment(), dry_run="All")
    assert made.spec.revision_history_limit == 10
    assert cluster.objects("deployments") == []


async def test_secrets_are_kept_coded(cluster: StandInCluster, api: Api) -> None:
    body = {"metadata": {"name": "s"}, "stringData": {"key": "value"}}
    made = await api.core.create_namespaced_secret("default", body)
    assert base64.b64decode(made.data["key"]) == b"value"
    assert made.string_data is None
    assert made.type == "Opaque"


async def test_numbers_that_are_none(cluster: StandInCluster, api: Api) -> None:
    for query in (
        {"limit": "x"},
        {"watch": "1", "resourceVersion": "x"},
        {"watch": "1", "timeoutSeconds": "x"},
    ):
        asked = api.core.api_client.call_api(
            *("/api/v1/pods", "GET", {}, list(query.items())), auth_settings=["BearerToken"]
        )
        assert (await refused(asked))["code"] == 400


async def test_discovery(cluster: StandInCluster, api: Api) -> None:
    assert (await api.version.get_code()).git_version == "v1.36.0"
    names = [group.name for group in (await api.groups.get_api_versions()).groups]
    assert {"apps", "keda.sh", "gateway.networking.k8s.io", "metrics.k8s.io"} <= set(names)
    listed = await api.apps.get_api_resources()
    assert {"deployments", "deployments/scale", "replicasets"} <= {one.name for one in listed.resources}
    cluster.uninstall("keda", "gateway_api")
    names = [group.name for group in (await api.groups.get_api_versions()).groups]
    assert not {"keda.sh", "gateway.networking.k8s.io"} & set(names)
    args = ("keda.sh", "v1alpha1", "default", "scaledobjects")
    assert (await refused(api.custom.list_namespaced_custom_object(*args)))["code"] == 404
