"""Settings are read once, and a wrong one is refused with its name and rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.errors import Unauthorized
from moorage.ports.provider import Credentials, ProviderConfig
from moorage_runpod.keys import account_id, has_key_form, key_of
from moorage_runpod.settings import WORKER_RUNTIMES, RunPodSettings, own_version

KEY = "rpa_" + "7QK2ZX" * 7


def read(**environ: str) -> RunPodSettings:
    named = {f"MOORAGE_RUNPOD_{name}": value for name, value in environ.items()}
    return RunPodSettings.read(ProviderConfig(Path("unused"), named, installation="here"))


def test_the_defaults() -> None:
    settings = read()
    assert settings.api_url == "https://api.runpod.io"
    assert (settings.workers_min, settings.workers_max, settings.idle_timeout) == (0, 3, 120)
    assert set(settings.images) == set(WORKER_RUNTIMES)
    assert settings.images["diffusers"] == f"moorage/worker-diffusers:{own_version()}"
    assert settings.installation == "here"


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("WORKERS_MIN", "-1", "from 0 to 1000"),
        ("WORKERS_MIN", "1.5", "whole number"),
        ("WORKERS_MAX", "many", "from 1 to 1000"),
        ("IDLE_TIMEOUT_SECONDS", "0", "from 1 to 3600"),
        ("IDLE_TIMEOUT_SECONDS", "nan", "from 1 to 3600"),
        ("CAPACITY_SECONDS", "inf", "from 0.01 to 3600"),
        ("API_URL", "ftp://api.runpod.io", "http"),
        ("API_URL", "https://user:word@api.runpod.io", "without user"),
        ("MIN_CUDA", "12", "such as 12.8"),
        ("IMAGE", "an image", "without spaces"),
        ("IMAGE_DIFFUSERS", "an image", "without spaces"),
    ],
)
def test_a_wrong_setting_is_named_with_its_rule(name: str, value: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as raised:
        read(**{name: value})
    assert f"MOORAGE_RUNPOD_{name}" in str(raised.value)


def test_fewer_workers_at_most_than_at_least() -> None:
    with pytest.raises(ValueError, match="MOORAGE_RUNPOD_WORKERS_MAX must be at least"):
        read(WORKERS_MIN="4", WORKERS_MAX="2")
    assert read(WORKERS_MIN="5").workers_max == 5


def test_the_image_of_a_runtime_wins_over_the_one_for_all() -> None:
    settings = read(IMAGE="acme/all:1", IMAGE_SENTENCE_TRANSFORMERS="acme/st:2", IMAGE_VLLM="acme/vllm:3")
    assert settings.images == {
        "diffusers": "acme/all:1",
        "transformers": "acme/all:1",
        "sentence-transformers": "acme/st:2",
        "vllm": "acme/vllm:3",
    }


@pytest.mark.parametrize("key", [KEY, "A1B2C3D4E5" * 4])
def test_the_form_of_a_key(key: str) -> None:
    assert has_key_form(key)


@pytest.mark.parametrize(
    "other",
    [
        "",
        "rpa_",
        "mrg_0123456789abcdef0123456789abcdef",
        "eyJhbGciOi.eyJzdWIi.c2ln",
        f"Bearer {KEY}",
        f"{KEY} ",
        "a" * 40,
    ],
)
def test_what_is_no_key(other: str) -> None:
    assert not has_key_form(other)


@pytest.mark.parametrize(
    "values", [None, {}, {"api_key": ""}, {"api_key": "two words"}, {"api_key": "new\nline"}]
)
def test_without_a_key_it_says_what_to_give(values: dict[str, str] | None) -> None:
    with pytest.raises(Unauthorized) as raised:
        key_of(None if values is None else Credentials(values))
    assert "API key" in (raised.value.advice or "")


def test_an_account_is_known_by_a_hash() -> None:
    assert account_id(KEY) == account_id(KEY)
    assert account_id(KEY) != account_id(KEY + "A")
    assert KEY not in account_id(KEY)
