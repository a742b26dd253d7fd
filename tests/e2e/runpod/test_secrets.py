"""Where secrets must not be: every place that a deployment leaves traces in is searched for all of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from moorage.testing.hub import HubStandIn
from moorage_runpod.testing import KEY, FakeRunPod

from .conftest import MODEL, Harbour, harbour

HF_TOKEN = "hf_the_users_hub_token_0000000000"
ENV_VALUE = "a-value-of-the-users-environment"
BUCKET_KEY, BUCKET_SECRET = "AKIATHEUSERSBUCKET00", "the-users-bucket-secret-0000000000000000"
PLATFORM_KEY, PLATFORM_SECRET = "AKIATHEPLATFORMSKEY0", "the-platforms-bucket-secret-000000000000"
PASSWORD = "the owner's password, long enough"
WORKLOADS = {HF_TOKEN, ENV_VALUE, BUCKET_KEY, BUCKET_SECRET}  # what this workload needs, and was given for it
ALL = {KEY, PLATFORM_KEY, PLATFORM_SECRET, PASSWORD, *WORKLOADS}

BODY = {
    "hf_model_id": MODEL,
    "hf_token": HF_TOKEN,
    "env": {"PRIVATE_SETTING": ENV_VALUE},
    "cache_scope": "private",
    "user_s3_url": "s3://bucket/models",
    "user_aws_access_key_id": BUCKET_KEY,
    "user_aws_secret_access_key": BUCKET_SECRET,
}


def found_in(text: str | bytes) -> set[str]:
    raw = text if isinstance(text, bytes) else text.encode()
    return {secret for secret in ALL if secret.encode() in raw}


async def a_life(port: Harbour) -> list[str]:
    """Ready, used, failed, deleted; returns every answer that a user got."""
    hook = {"user_webhook_url": port.hook}
    answers = [(await port.user.post("/v1/deployments/plan", json=BODY)).text]
    id_ = await port.deploy(**{k: v for k, v in (BODY | hook).items() if k != "hf_model_id"})
    await port.until(id_, "ready")
    endpoint_env = json.dumps(port.fake.endpoints[0].spec.env)
    assert found_in(endpoint_env) == WORKLOADS, "what the workload needs, and nothing else"
    answers.append((await port.user.post(f"/v1/models/{id_}/infer", json={"inputs": 1})).text)
    parts = ("", "/events", "/logs", "/cost")
    answers += [(await port.user.get(f"/v1/deployments/{id_}{part}")).text for part in parts]
    await port.delete(id_)
    port.fake.faults.crash_loops = frozenset({"*"})
    broken = await port.deploy(**{k: v for k, v in BODY.items() if k != "hf_model_id"})
    await port.until(broken, "failed")
    answers.append((await port.user.get(f"/v1/deployments/{broken}/events")).text)
    port.fake.faults.clear()
    for body in (
        {**BODY, "user_s3_url": "https://bucket"},
        {**BODY, "workers_min": 5, "workers_max": 1},
        {**BODY, "gpu_tier": "none such"},
    ):
        refused = await port.user.post("/v1/deployments", json=body)
        assert refused.status_code == 422
        answers.append(refused.text)
    for bearer in (f"{KEY}X", "rpa_" + "Y" * 44):
        async with port.client(bearer) as stranger:
            answers.append((await stranger.get("/v1/deployments")).text)
    lists = ("/v1/credentials", "/v1/deliveries", "/v1/gpus", "/v1/deployments")
    return answers + [(await port.user.get(path)).text for path in lists]


async def test_no_secret_is_where_it_is_not_needed(
    tmp_path: Path,
    fake: FakeRunPod,
    hub: HubStandIn,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.accept_token(HF_TOKEN)
    async with harbour(
        tmp_path / "var",
        fake,
        hub,
        bootstrap_user="owner",
        bootstrap_password=PASSWORD,
        log_level="debug",
        shared_cache_url="s3://platform/models",
        shared_cache_access_key_id=PLATFORM_KEY,
        shared_cache_secret_access_key=PLATFORM_SECRET,
    ) as port:
        answers = await a_life(port)
        sent = [body for _, body in port.messages]
    places: dict[str, str | bytes] = {
        "answers": "\n".join(answers),
        "webhooks": b"\n".join(sent),
        "log records": "\n".join(record.getMessage() for record in caplog.records),
        "standard output and error": "".join(capfd.readouterr()),
    }
    for path in (tmp_path / "var").rglob("*"):
        if path.is_file():
            places[f"file {path.name}"] = path.read_bytes()
    assert any(name.startswith("file moorage.db") for name in places)
    assert "engine.effect" in str(places["standard output and error"]), "else nothing was searched"
    assert {place: found for place, text in places.items() if (found := found_in(text))} == {}
