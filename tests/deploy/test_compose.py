"""docker-compose.yaml: valid, closed, without a password of its own, with settings that the service takes."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from pathlib import Path
from typing import Any  # YAML documents

import pytest
import yaml

from moorage.adapters.secrets import KeyRing

from .documented import ENV_FILE, env_file
from .environments import known_names, settings_of
from .programs import program

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yaml"
REPLICAS = ("moorage-1", "moorage-2")
_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([?-])([^}]*))?\}")


def compose(environ: dict[str, str]) -> dict[str, Any]:
    """As Compose reads it: variables first. Raises KeyError for one that must be set and is not."""

    def value(found: re.Match[str]) -> str:
        name, kind, otherwise = found.groups()
        if environ.get(name):
            return environ[name]
        if kind == "-":
            return str(otherwise)
        raise KeyError(name)

    document = yaml.safe_load(_VARIABLE.sub(value, FILE.read_text(encoding="utf-8")))
    return dict(document)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return env_file(tmp_path)


def test_it_is_valid_by_the_schema_of_compose() -> None:
    check = [
        program("check-jsonschema"),
        "--builtin-schema",
        "vendor.compose-spec",
        str(FILE),
    ]
    checked = subprocess.run(check, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_no_password_has_a_default(environ: dict[str, str]) -> None:
    assert set(environ) == ENV_FILE
    for name in ENV_FILE:
        with pytest.raises(KeyError, match=name):
            compose({**environ, name: ""})


@pytest.mark.parametrize("replica", REPLICAS)
def test_the_service_takes_its_settings(replica: str, environ: dict[str, str]) -> None:
    given = compose(environ)["services"][replica]["environment"]
    settings = settings_of({k: v for k, v in given.items() if v is not None})
    assert settings.machine == replica
    assert settings.secret_keys is not None
    assert KeyRing.parse(settings.secret_keys.get_secret_value())
    assert (
        settings.database_url == f"postgresql://moorage:{environ['POSTGRES_PASSWORD']}@postgres:5432/moorage"
    )
    assert set(given) <= known_names()


def test_replicas_share_what_they_must_and_differ_in_what_they_must(environ: dict[str, str]) -> None:
    first, second = (compose(environ)["services"][name] for name in REPLICAS)
    apart = {k for k in first["environment"] if first["environment"][k] != second["environment"][k]}
    assert apart == {"MOORAGE_MACHINE", "MOORAGE_MANAGED_HOST"}
    assert first["volumes"] != second["volumes"]
    assert first["ports"] != second["ports"]


@pytest.mark.parametrize("replica", REPLICAS)
def test_models_of_one_replica_are_reached_by_the_other_and_by_nobody_else(
    replica: str, environ: dict[str, str]
) -> None:
    document = compose(environ)
    service = document["services"][replica]
    address = service["networks"]["replicas"]["ipv4_address"]
    assert service["environment"]["MOORAGE_MANAGED_HOST"] == address
    network = document["networks"]["replicas"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(network["ipam"]["config"][0]["subnet"])
    assert network["internal"] is True
    members = {name for name, each in document["services"].items() if "replicas" in each["networks"]}
    assert members == {*REPLICAS, "postgres"}


@pytest.mark.parametrize("name", [*REPLICAS, "postgres"])
def test_containers_have_no_right_and_nothing_to_write_to_that_is_not_named(
    name: str, environ: dict[str, str]
) -> None:
    service = compose(environ)["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert all(re.match(r"[a-z0-9-]+:/", volume) for volume in service["volumes"]), "named volumes only"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), "this machine only"


def test_the_service_waits_for_a_database_that_answers(environ: dict[str, str]) -> None:
    services = compose(environ)["services"]
    assert services["postgres"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    for replica in REPLICAS:
        assert services[replica]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["postgres"]["image"].startswith("postgres:18")
    assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
