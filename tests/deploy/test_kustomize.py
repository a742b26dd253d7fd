"""The manifests: built by the real kustomize, held against the published schemas, safe where it counts."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from .environments import known_names, settings_of
from .manifests import KUSTOMIZE, ROOT, Document, built, container, one

BASE, EXAMPLE = KUSTOMIZE / "base", KUSTOMIZE / "overlays" / "example"
VERSIONS = ("1.34", "1.36")
OTHERS = {"ServiceMonitor"}  # a kind of an operator's, of which no schema is published with Kubernetes'


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", [BASE, EXAMPLE], ids=lambda folder: folder.name)
def test_what_kustomize_builds_is_valid_and_has_no_unknown_field(folder: Path, version: str) -> None:
    documents = [document for document in built(folder) if document["kind"] not in OTHERS]
    assert {"Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service"} <= {d["kind"] for d in documents}
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelled_field_would_be_found() -> None:
    deployment = yaml.safe_load(yaml.safe_dump(one(built(BASE), "Deployment")))
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


@pytest.fixture(params=[BASE, EXAMPLE], ids=["base", "example"])
def documents(request: pytest.FixtureRequest) -> list[Document]:
    return built(request.param)


def test_pods_keep_the_restricted_security_level_on_a_file_system_that_they_cannot_write(
    documents: list[Document],
) -> None:
    levels = one(documents, "Namespace", "moorage-system")["metadata"]["labels"]
    assert levels["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = one(documents, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    user = pod["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in dockerfile
    held = container(one(documents, "Deployment"))
    assert held["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {v["mountPath"]: v["name"] for v in held["volumeMounts"] if not v.get("readOnly")}
    assert set(writable) == {"/tmp", "/var/lib/moorage"}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert all("emptyDir" in volumes[name] for name in writable.values())


def test_no_pod_of_the_service_has_a_token_of_its_cluster(documents: list[Document]) -> None:
    pod = one(documents, "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert one(documents, "ServiceAccount")["automountServiceAccountToken"] is False


def test_the_base_gives_no_permission_at_all() -> None:
    assert not [d for d in built(BASE) if d["apiVersion"].startswith("rbac.authorization.k8s.io")]


def test_a_service_called_moorage_puts_nothing_into_the_settings(documents: list[Document]) -> None:
    """Kubernetes would set MOORAGE_PORT=tcp://…, which is no port."""
    assert one(documents, "Service")["metadata"]["name"] == "moorage"
    assert one(documents, "Deployment")["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_probes_ask_what_they_mean(documents: list[Document]) -> None:
    held = container(one(documents, "Deployment"))
    [port] = held["ports"]
    paths = {kind: held[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {kind: probe["path"] for kind, probe in paths.items()} == {
        "startupProbe": "/health",
        "livenessProbe": "/health",
        "readinessProbe": "/ready",
    }
    assert {probe["port"] for probe in paths.values()} == {port["name"]}
    pod = one(documents, "Deployment")["spec"]["template"]["spec"]
    leaving = held["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > leaving + 30, "time to answer what is in flight"


def test_nodes_may_be_drained_one_by_one_and_replicas_are_spread(documents: list[Document]) -> None:
    deployment = one(documents, "Deployment")
    budget = one(documents, "PodDisruptionBudget")["spec"]
    assert deployment["spec"]["replicas"] > budget["maxUnavailable"] > 0
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selected in (
        deployment["spec"]["selector"]["matchLabels"],
        budget["selector"]["matchLabels"],
        one(documents, "Service")["spec"]["selector"],
        one(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(
            c["labelSelector"]["matchLabels"]
            for c in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        ),
    ):
        assert selected
        assert selected.items() <= labels.items()


def test_every_setting_is_one_that_the_service_knows_and_accepts() -> None:
    documents = built(EXAMPLE)
    settings = one(documents, "ConfigMap", "moorage-settings")["data"]
    direct = {each["name"]: each for each in container(one(documents, "Deployment"))["env"]}
    assert {*settings, *direct} <= known_names()
    read = settings_of(settings)
    assert read.public_url == settings["MOORAGE_PUBLIC_URL"]
    assert read.installation == settings["MOORAGE_INSTALLATION"]
    assert read.otlp_endpoint == settings["MOORAGE_OTLP_ENDPOINT"]
    assert settings_of({"MOORAGE_PORT": str(direct["MOORAGE_PORT"]["value"])}).port == 8080


def test_a_pod_without_what_all_replicas_share_does_not_start() -> None:
    """A variable that only `envFrom` brought could be missing without a word."""
    direct = {each["name"]: each for each in container(one(built(BASE), "Deployment"))["env"]}
    for name in ("MOORAGE_INSTALLATION", "MOORAGE_DATABASE_URL", "MOORAGE_SECRET_KEYS"):
        [[kind, source]] = direct[name]["valueFrom"].items()
        assert kind in ("configMapKeyRef", "secretKeyRef")
        assert source["key"] == name
        assert not source.get("optional")


def test_no_file_holds_a_secret_and_the_token_of_the_driver_is_made_by_kubernetes() -> None:
    [secret] = [document for document in built(EXAMPLE) if document["kind"] == "Secret"]
    assert secret["type"] == "kubernetes.io/service-account-token"
    assert "data" not in secret
    assert "stringData" not in secret


def test_nothing_but_named_ways_leads_into_and_out_of_pods() -> None:
    policy = one(built(BASE), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"]["matchLabels"]
    blocks = [to["ipBlock"] for rule in policy["egress"] for to in rule.get("to", ())]
    anywhere = next(block for block in blocks if block["cidr"] == "0.0.0.0/0")
    assert "169.254.0.0/16" in anywhere["except"], "the cloud's metadata server"
    open_ports = {port["port"] for rule in policy["egress"] if "to" not in rule for port in rule["ports"]}
    assert open_ports == {53, 5432}
    assert all(rule.get("from") for rule in policy["ingress"])


def test_the_driver_finds_its_kubeconfig_where_the_component_mounts_it() -> None:
    documents = built(EXAMPLE)
    settings = one(documents, "ConfigMap", "moorage-settings")["data"]
    assert settings["MOORAGE_MANAGED_DRIVER"] == "kubernetes"
    path = Path(settings["MOORAGE_MANAGED_KUBECONFIGS"].partition("=")[2])
    mounts = {m["mountPath"]: m for m in container(one(documents, "Deployment"))["volumeMounts"]}
    assert mounts[str(path.parent)]["readOnly"] is True
