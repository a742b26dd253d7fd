"""`.env.example` and what the code reads are held together: every variable, with the default that holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import AliasChoices, ValidationError
from pydantic.fields import FieldInfo

from moorage.ports.provider import ProviderConfig
from moorage.settings import Settings
from moorage_kubernetes import settings as kubernetes_settings
from moorage_managed import DRIVER_VARIABLE
from moorage_managed.clusters.settings import USUAL, ClusterSettings, organization_quota
from moorage_managed.settings import PREFIX, LocalSettings
from moorage_runpod import settings as runpod_settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
OF_PROVIDERS = (PREFIX, kubernetes_settings.PREFIX, runpod_settings.PREFIX)
CLIENT = {"MOORAGE_URL", "MOORAGE_KEY", "MOORAGE_PASSWORD"}
DEMO = {"MOORAGE_DEMO_MODEL", "MOORAGE_DEMO_SECONDS"}


def listed() -> dict[str, str]:
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE))


def variable(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"MOORAGE_{name.upper()}"


def service_variables() -> dict[str, str]:
    return {variable(name, field): name for name, field in Settings.model_fields.items()}


class Recording(Mapping[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*listed(), "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def test_every_setting_of_the_service_is_listed_and_nothing_else() -> None:
    of_providers = {name for name in listed() if name.startswith(OF_PROVIDERS)}
    assert set(listed()) - of_providers - CLIENT - DEMO == set(service_variables())


def test_every_setting_of_the_managed_provider_is_listed(tmp_path: Path) -> None:
    environ = Recording()
    LocalSettings.read(ProviderConfig(tmp_path, environ, "https://hub.example"))
    with pytest.raises(ValueError, match="KUBECONFIGS must name"):
        ClusterSettings.read(ProviderConfig(tmp_path, environ, "https://hub.example"), datetime.now(UTC))
    asked = {name for name in environ.asked if name.startswith(PREFIX)}
    assert asked | {DRIVER_VARIABLE} == {name for name in listed() if name.startswith(PREFIX)}


def test_the_quota_on_the_operator_s_clusters_is_the_one_listed() -> None:
    environ = {name: value for name, value in listed().items() if name.startswith(PREFIX) and value}
    assert organization_quota(environ) == organization_quota({}) == USUAL


def test_every_setting_of_the_kubernetes_provider_is_listed(tmp_path: Path) -> None:
    environ = Recording()
    kubernetes_settings.KubernetesSettings.read(ProviderConfig(tmp_path, environ, "https://hub.example"))
    images = {kubernetes_settings.image_variable(runtime) for runtime in kubernetes_settings.WORKER_RUNTIMES}
    known = {name for name in listed() if name.startswith(kubernetes_settings.PREFIX)}
    assert environ.asked | images == known


def test_the_defaults_of_the_kubernetes_provider_are_those_listed(tmp_path: Path) -> None:
    environ = {n: v for n, v in listed().items() if n.startswith(kubernetes_settings.PREFIX) and v}
    read = kubernetes_settings.KubernetesSettings.read
    assert read(ProviderConfig(tmp_path, environ)) == read(ProviderConfig(tmp_path, {}))


def test_every_setting_of_the_runpod_provider_is_listed(tmp_path: Path) -> None:
    environ = Recording()
    runpod_settings.RunPodSettings.read(ProviderConfig(tmp_path, environ, "https://hub.example"))
    images = {runpod_settings.image_variable(runtime) for runtime in runpod_settings.WORKER_RUNTIMES}
    known = {name for name in listed() if name.startswith(runpod_settings.PREFIX)}
    assert environ.asked | images == known


def test_the_defaults_of_the_runpod_provider_are_those_listed(tmp_path: Path) -> None:
    environ = {n: v for n, v in listed().items() if n.startswith(runpod_settings.PREFIX) and v}
    usual = runpod_settings.RunPodSettings.read(ProviderConfig(tmp_path, {}))
    assert runpod_settings.RunPodSettings.read(ProviderConfig(tmp_path, environ)) == usual


@pytest.mark.usefixtures("clean")
def test_the_listed_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting every variable to the value that the file shows changes nothing."""
    usual = Settings()
    for name in service_variables():
        if listed()[name]:
            monkeypatch.setenv(name, listed()[name])
    assert Settings() == usual


@pytest.mark.usefixtures("clean")
def test_a_default_that_is_listed_empty_is_none() -> None:
    usual = Settings()
    for name, attribute in service_variables().items():
        if not listed()[name]:
            assert getattr(usual, attribute) in (None, ""), name


@pytest.mark.usefixtures("clean")
def test_the_hub_of_other_tools_is_understood_and_ours_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")
    assert Settings().hub_url == "http://mirror.example"
    monkeypatch.setenv("MOORAGE_HUB_URL", "http://hub.example")
    assert Settings().hub_url == "http://hub.example"


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("name", "value"),
    [("MOORAGE_PORT", "65536"), ("MOORAGE_LOG_LEVEL", "loud"), ("MOORAGE_TOKEN_HOURS", "0")],
)
def test_a_value_out_of_range_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_BOOTSTRAP_PASSWORD", "correct horse")
    assert "correct horse" not in repr(Settings())


@pytest.mark.usefixtures("clean")
def test_a_line_without_its_value_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in service_variables():
        monkeypatch.setenv(name, "")
    assert not Settings().shares_store
    assert Settings().tick_token is None


@pytest.mark.usefixtures("clean")
def test_a_short_tick_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_TICK_TOKEN", "short")
    with pytest.raises(ValidationError, match="tick_token"):
        Settings()
