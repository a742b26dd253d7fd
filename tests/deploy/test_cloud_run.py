"""cloudbuild.yaml and the service on Cloud Run: valid, filled in whole, under accounts of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from string import Template
from typing import Any  # YAML documents

import kubernetes_validate
import pytest
import yaml

from .environments import known_names, settings_of
from .programs import program

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "cloudbuild.yaml"
RENDER = ROOT / "deploy" / "cloudrun" / "render.sh"
# What Cloud Build knows of every build.
BUILT_IN = {
    "PROJECT_ID": "acme-models",
    "PROJECT_NUMBER": "123456789012",
    "BUILD_ID": "b0ba2f7e-3a57-4b34-8c1f-61a0c1a8a2dd",
    "COMMIT_SHA": "",  # nothing, where a build is submitted by hand
}


def build() -> dict[str, Any]:
    """The document with its substitutions, those of others in them first."""
    text = BUILD.read_text(encoding="utf-8")
    known = dict(BUILT_IN)
    for name, value in yaml.safe_load(text)["substitutions"].items():
        known[name] = Template(value).substitute(known)
    return dict(yaml.safe_load(Template(text).substitute(known)))


def step(name: str) -> dict[str, Any]:
    [found] = [each for each in build()["steps"] if each["id"] == name]
    return dict(found)


def service(mode: str) -> dict[str, Any]:
    """As the deploy step renders it: its own script, with a `gcloud` that reads what it is given."""
    environ = dict(each.split("=", 1) for each in step("deploy")["env"])
    rendered = subprocess.run([RENDER], env={**environ, "MODE": mode}, capture_output=True, text=True)
    assert rendered.returncode == 0, rendered.stderr
    return dict(yaml.safe_load(rendered.stdout))


def test_the_build_is_valid_by_the_schema_of_cloud_build() -> None:
    check = [
        program("check-jsonschema"),
        "--builtin-schema",
        "vendor.cloudbuild",
        str(BUILD),
    ]
    checked = subprocess.run(check, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_nothing_is_deployed_that_was_not_tested_and_pushed() -> None:
    ids = [each["id"] for each in build()["steps"]]
    assert ids == ["test", "build", "push", "deploy"]
    assert step("push")["waitFor"] == ["test", "build"]
    assert step("deploy")["waitFor"] == ["push"]
    assert "make check" in step("test")["args"][-1]
    assert "make test" in step("test")["args"][-1]


def test_the_image_that_is_built_is_the_image_that_runs() -> None:
    document = build()
    [image] = document["images"]
    assert f"--tag={image}" in step("build")["args"]
    assert image.startswith(f"{step('push')['args'][-1]}:")
    [container] = service("always")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image


def test_the_build_is_an_account_of_its_own_and_the_service_another() -> None:
    document = build()
    assert document["serviceAccount"].endswith("/moorage-build@acme-models.iam.gserviceaccount.com")
    assert document["options"]["logging"] == "CLOUD_LOGGING_ONLY", "which such an account needs"
    run = service("always")["spec"]["template"]["spec"]["serviceAccountName"]
    assert run == "moorage-run@acme-models.iam.gserviceaccount.com"


def test_the_deploy_step_is_a_script_of_which_bash_leaves_nothing_open(tmp_path: Path) -> None:
    """Run as Cloud Build runs it, with a gcloud that keeps what it gets."""
    deploy = step("deploy")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncp "$4" {tmp_path}/given.yaml\n')
    gcloud.chmod(0o755)
    flags, text = deploy["args"]
    ran = subprocess.run(
        ["bash", flags, text.replace("/workspace", str(workspace))],
        cwd=ROOT,
        env={**dict(each.split("=", 1) for each in deploy["env"]), "PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:3] == ["run", "services", "replace"]
    assert asked[4:] == ["--project=acme-models", "--region=europe-west1"]
    assert yaml.safe_load((tmp_path / "given.yaml").read_text()) == service("always")


@pytest.mark.parametrize("mode", ["always", "ticked"])
def test_the_container_is_a_valid_one_and_nothing_is_left_to_fill_in(mode: str) -> None:
    document = service(mode)
    assert "${" not in yaml.safe_dump(document)
    template = document["spec"]["template"]["spec"]
    pod = {"containers": template["containers"], "serviceAccountName": template["serviceAccountName"]}
    wrapped = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "moorage"}, "spec": pod}
    kubernetes_validate.validate(wrapped, "1.36", strict=True)
    [container] = template["containers"]
    [port] = container["ports"]
    assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe")} == {
        port["containerPort"]
    }
    assert container["startupProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"


@pytest.mark.parametrize(
    ("mode", "least", "throttled", "ticked"), [("always", "1", "false", False), ("ticked", "0", "true", True)]
)
def test_an_engine_that_gets_no_cpu_between_requests_is_ticked(
    mode: str, least: str, throttled: str, ticked: bool
) -> None:
    document = service(mode)
    annotations = document["spec"]["template"]["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/minScale"] == least
    assert annotations["run.googleapis.com/cpu-throttling"] == throttled
    [container] = document["spec"]["template"]["spec"]["containers"]
    secrets = {
        e["name"]: e["valueFrom"]["secretKeyRef"]["name"] for e in container["env"] if "valueFrom" in e
    }
    assert secrets.keys() == {"MOORAGE_SECRET_KEYS", "MOORAGE_TICK_TOKEN", "MOORAGE_BOOTSTRAP_PASSWORD"}
    given = {e["name"]: e["value"] for e in container["env"] if "value" in e}
    assert given.keys() | secrets.keys() <= known_names()
    settings = settings_of({**given, **dict.fromkeys(secrets, "a-secret-of-many-letters")})
    assert settings.tick_only is ticked
    assert settings.public_url == "https://moorage-123456789012.europe-west1.run.app"
    assert settings.store_url.startswith("firestore://acme-models/")


@pytest.mark.parametrize(
    "missing", ["PROJECT_ID", "REGION", "IMAGE", "SERVICE_ACCOUNT", "PUBLIC_URL", "INSTALLATION"]
)
def test_what_is_not_said_is_asked_for_by_name(missing: str) -> None:
    environ = dict(each.split("=", 1) for each in step("deploy")["env"])
    del environ[missing]
    rendered = subprocess.run([RENDER], env=environ, capture_output=True, text=True)
    assert rendered.returncode != 0
    assert f"{missing}: must be set" in rendered.stderr


@pytest.mark.parametrize(("name", "value"), [("MODE", "never"), ("IMAGE", "a\nb: c"), ("REGION", "|e date")])
def test_what_would_say_something_else_in_the_manifest_is_refused(name: str, value: str) -> None:
    environ = dict(each.split("=", 1) for each in step("deploy")["env"])
    rendered = subprocess.run([RENDER], env={**environ, name: value}, capture_output=True, text=True)
    assert rendered.returncode == 2
    assert name in rendered.stderr
    assert rendered.stdout == ""
