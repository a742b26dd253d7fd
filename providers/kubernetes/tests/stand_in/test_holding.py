"""Every object is held against its schema and the server's rules, each broken once here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from moorage_kubernetes.testing import StandInCluster

from .asking import APPLY, Api, Json, claim, deployment, refused, scaled_object, service

Change = Callable[[Json], object]


def _pod(body: Json) -> Json:
    spec: Json = body["spec"]["template"]["spec"]
    return spec


def _container(body: Json) -> Json:
    container: Json = _pod(body)["containers"][0]
    return container


def _resources(requests: Json, limits: Json) -> Change:
    return lambda body: _container(body).update(resources={"requests": requests, "limits": limits})


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        (lambda b: b["metadata"].update(name="Web"), "metadata.name", "lowercase RFC 1123 subdomain"),
        (lambda b: b["metadata"].update(labels={"a": "b c"}), "metadata.labels", "a valid label must be"),
        (lambda b: b["spec"].pop("selector"), "spec.selector", "Required value"),
        (
            lambda b: b["spec"].update(selector={"matchLabels": {"x": "y"}}),
            "spec.template.metadata.labels",
            "`selector` does not match template `labels`",
        ),
        (lambda b: b["spec"].update(replicas="2"), "spec.replicas", "Invalid value"),
        (lambda b: b["spec"].update(replicas=-1), "spec.replicas", "greater than or equal to 0"),
        (
            lambda b: b["spec"].update(strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
            "spec.strategy.rollingUpdate.maxUnavailable",
            "may not be 0",
        ),
        (
            lambda b: b["spec"].update(strategy={"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
            "spec.strategy.rollingUpdate",
            "Forbidden",
        ),
        (
            lambda b: b["spec"].update(minReadySeconds=600),
            "spec.progressDeadlineSeconds",
            "greater than minReadySeconds",
        ),
        (
            lambda b: _pod(b).update(restartPolicy="Never"),
            "spec.template.spec.restartPolicy",
            'supported values: "Always"',
        ),
        (
            lambda b: _pod(b).update(tolerations=[{"key": "k", "operator": "Exists", "value": "v"}]),
            "spec.template.spec.tolerations[0].operator",
            "value must be empty",
        ),
        (lambda b: b["spec"].update(strategy={"type": "Blue"}), "spec.strategy.type", "Unsupported value"),
        (
            lambda b: _container(b).update(imagePullPolicy="Sometimes"),
            "spec.template.spec.containers[0].imagePullPolicy",
            'supported values: "Always", "IfNotPresent", "Never"',
        ),
        (lambda b: _container(b).pop("name"), "spec.template.spec.containers[0].name", "Required value"),
        (
            lambda b: _pod(b)["containers"].append(dict(_container(b))),
            "spec.template.spec.containers[1].name",
            "Duplicate value",
        ),
        (
            lambda b: _container(b).update(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            "spec.template.spec.containers[0].volumeMounts[0].name",
            "Not found",
        ),
        (
            lambda b: _container(b).update(ports=[{"containerPort": 70000}]),
            "spec.template.spec.containers[0].ports[0].containerPort",
            "between 1 and 65535",
        ),
        (
            lambda b: _container(b).update(livenessProbe={"httpGet": {"port": 1}, "successThreshold": 2}),
            "spec.template.spec.containers[0].livenessProbe.successThreshold",
            "must be 1",
        ),
        (
            lambda b: _container(b).update(
                env=[{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
            ),
            "spec.template.spec.containers[0].env[0].valueFrom",
            "may not be specified",
        ),
        (
            _resources({"cpu": "2"}, {"cpu": "1"}),
            "spec.template.spec.containers[0].resources.requests",
            "less than or equal to cpu limit of 1",
        ),
        (
            _resources({"nvidia.com/gpu": "1"}, {}),
            "spec.template.spec.containers[0].resources.requests",
            "Limit must be set",
        ),
        (
            _resources({}, {"nvidia.com/gpu": "500m"}),
            "spec.template.spec.containers[0].resources.limits[nvidia.com/gpu]",
            "must be an integer",
        ),
        (
            _resources({"memory": "lots"}, {}),
            "spec.template.spec.containers[0].resources.requests[memory]",
            "regular expression",
        ),
    ],
)
async def test_a_deployment(cluster: StandInCluster, api: Api, change: Change, field: str, told: str) -> None:
    body = deployment()
    change(body)
    status = await refused(api.apps.create_namespaced_deployment("default", body))
    assert (status["code"], status["reason"]) == (422, "Invalid")
    causes = {cause["field"]: cause["message"] for cause in status["details"]["causes"]}
    assert told in causes[field]
    assert [r.status for r in cluster.refused] == [422]


@pytest.mark.parametrize(
    ("kind", "change", "field"),
    [
        ("service", lambda b: b["spec"].update(ports=[]), "spec.ports"),
        ("service", lambda b: b["spec"].update(ports=[{"port": 1}, {"port": 2}]), "spec.ports[0].name"),
        ("service", lambda b: b["metadata"].update(name="1web"), "metadata.name"),
        ("service", lambda b: b["spec"].update(type="Internal"), "spec.type"),
        ("claim", lambda b: b["spec"].update(accessModes=[]), "spec.accessModes"),
        ("claim", lambda b: b["spec"].update(accessModes=["Any"]), "spec.accessModes"),
        ("claim", lambda b: b["spec"].pop("resources"), "spec.resources[storage]"),
        ("scaled", lambda b: b["spec"].update(minReplicaCount=3, maxReplicaCount=2), "spec"),
        ("scaled", lambda b: b["spec"].update(pollingInterval=0), "spec.pollingInterval"),
        ("scaled", lambda b: b["spec"].update(triggers=[]), "spec.triggers"),
        ("scaled", lambda b: b["spec"].pop("scaleTargetRef"), "spec.scaleTargetRef"),
    ],
)
async def test_the_others(cluster: StandInCluster, api: Api, kind: str, change: Change, field: str) -> None:
    body = {"service": service, "claim": lambda: claim("data"), "scaled": scaled_object}[kind]()
    change(body)
    body["metadata"]["namespace"] = "default"
    asked: Awaitable[Any]
    if kind == "service":
        asked = api.core.create_namespaced_service("default", body)
    elif kind == "claim":
        asked = api.core.create_namespaced_persistent_volume_claim("default", body)
    else:
        asked = api.custom.create_namespaced_custom_object(
            "keda.sh", "v1alpha1", "default", "scaledobjects", body
        )
    status = await refused(asked)
    assert status["code"] == 422
    assert field in [cause["field"] for cause in status["details"]["causes"]]


async def test_strict_warn_and_ignore(cluster: StandInCluster, api: Api) -> None:
    body = deployment()
    body["spec"]["template"]["spec"]["hostnam"] = "x"
    create = api.apps.create_namespaced_deployment
    status = await refused(create("default", body, field_validation="Strict"))
    assert status["code"] == 400
    assert status["message"] == 'strict decoding error: unknown field "spec.template.spec.hostnam"'
    answer = await create("default", body, _preload_content=False)
    assert answer.headers["Warning"] == '299 - "unknown field \\"spec.template.spec.hostnam\\""'
    assert "hostnam" not in cluster.object("deployments", "web", "default")["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", ["1.34", "1.35", "1.36"])
async def test_every_supported_version_has_its_schemas(version: str) -> None:
    async with StandInCluster(version=version) as cluster, await cluster.api_client() as one:
        api = Api(one)
        await api.apply(deployment())
        assert (await api.version.get_code()).minor == version.partition(".")[2]
        wrong = deployment("other")
        wrong["spec"]["replicas"] = "many"
        assert (await refused(api.apply(wrong)))["code"] == 422


def test_a_version_without_schemas() -> None:
    with pytest.raises(ValueError, match=r"1\.34, 1\.35, 1\.36"):
        StandInCluster(version="1.20").world.objects.schemas.root(StandInCluster().resource("pods"))


async def test_the_selector_does_not_change(api: Api) -> None:
    await api.apply(deployment())
    other = deployment()
    other["spec"]["selector"]["matchLabels"] = {"app.kubernetes.io/name": "web", "x": "y"}
    other["spec"]["template"]["metadata"]["labels"] = {"app.kubernetes.io/name": "web", "x": "y"}
    status = await refused(api.apply(other))
    assert status["details"]["causes"][0]["field"] == "spec.selector"
    assert "field is immutable" in status["message"]


async def test_add_ons_are_held_against_their_definitions(cluster: StandInCluster, api: Api) -> None:
    send = api.custom.patch_namespaced_custom_object

    async def apply(group: str, version: str, plural: str, body: Json) -> Json:
        made: Json = await send(
            group, version, "default", plural, "x", body, field_manager="m", _content_type=APPLY
        )
        return made

    group = "gateway.networking.k8s.io"
    route = {
        "apiVersion": f"{group}/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "x"},
        "spec": {
            "parentRefs": [{"name": "gw"}],
            "rules": [{"backendRefs": [{"name": "web", "port": 80, "weight": 90}]}],
        },
    }
    await apply(group, "v1", "httproutes", route)
    found = cluster.object("httproutes", "x", "default")
    [backend] = found["spec"]["rules"][0]["backendRefs"]
    assert (backend["kind"], backend["weight"]) == ("Service", 90)  # a default of the definition
    route["spec"]["rules"][0]["backendRefs"][0]["weight"] = -1  # type: ignore[index]  # a literal from above
    status = await refused(apply(group, "v1", "httproutes", route))
    assert status["details"]["causes"][0]["field"] == "spec.rules[0].backendRefs[0].weight"
    policy = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "BackendTrafficPolicy",
        "metadata": {"name": "x"},
        "spec": {
            "targetRefs": [{"group": group, "kind": "HTTPRoute", "name": "x"}],
            "loadBalancer": {"type": "LeastRequest"},
        },
    }
    args = ("gateway.envoyproxy.io", "v1alpha1", "backendtrafficpolicies")
    await apply(*args, policy)
    policy["spec"]["loadBalancer"]["type"] = "Fastest"  # type: ignore[index]  # as above
    assert (await refused(apply(*args, policy)))["code"] == 422
