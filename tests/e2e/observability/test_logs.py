"""What is secret in the service's life is in no line of its log, whatever goes wrong."""

from __future__ import annotations

import io
import json
import logging
import secrets
import sys
from collections.abc import Iterator

import pytest
import structlog

from moorage.adapters import logging as service_logging
from moorage.errors import Rejected
from tests.e2e.api.conftest import PASSWORD, VENDOR_TOKEN, Api

HUB_TOKEN = "hf_" + secrets.token_hex(17)
PLAIN = secrets.token_hex(16)  # known to nobody by its form


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    out, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", out)
    service_logging.configure("json", "debug", secrets=[PLAIN], environ={})
    structlog.configure(cache_logger_on_first_use=False)  # loggers of modules outlive this test
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def test_a_life_full_of_secrets(log: io.StringIO, api: Api) -> None:
    stored = {"provider": "vendor", "name": "mine", "values": {"token": VENDOR_TOKEN}}
    assert (await api.owner.post("/v1/credentials", json=stored)).status_code == 201
    key = (await api.owner.post("/v1/keys", json={"name": "k", "role": "admin"})).json()["key"]
    api.hub.accept_token(HUB_TOKEN)
    hook = f"{api.receiver.hook}?token={PLAIN}"
    body = {"env": {"API_KEY": PLAIN}, "hf_token": HUB_TOKEN, "user_webhook_url": hook}
    id_ = await api.deploy(**body)
    await api.until(id_, "ready")
    await api.settled(id_)
    api.compute.faults.raise_next("create", Rejected(f"the key {PLAIN} and {HUB_TOKEN} were refused"), 9)
    bad = await api.deploy(**body)
    await api.until(bad, "failed", "ready")

    async def broken(*args: object) -> None:
        raise RuntimeError(f"could not open {HUB_TOKEN} with {PLAIN}") from ValueError(key)

    api.service.store.deployments = broken  # type: ignore[method-assign,assignment]  # what stands for the store
    async with api.client(f"Bearer {key}") as user:
        assert (await user.get("/v1/deployments")).status_code == 500
    await api.owner.post("/auth/token", json={"username": "owner", "password": f"{PASSWORD}!"})
    text = log.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    events = {line["event"] for line in lines}
    assert {"api.request", "engine.effect", "webhook.attempted", "api.bug"} <= events
    (bug,) = [line for line in lines if line["event"] == "api.bug"]
    assert "RuntimeError" in bug["exception"]
    for secret in (HUB_TOKEN, PLAIN, VENDOR_TOKEN, key, PASSWORD, api.owner.headers["authorization"][7:]):
        assert secret not in text
