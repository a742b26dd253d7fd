"""The shared cache: for models of the operator's list, by URLs that the service signs, with no key of its own
on any worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moorage.testing.hub import HubStandIn
from moorage_runpod.testing import FakeRunPod

from .conftest import MODEL, Harbour, harbour, write_pipeline

UNLISTED = "acme/unlisted-painter"
SECRET = "the-platforms-secret"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubStandIn]:
    async with HubStandIn() as found:
        for model in (MODEL, UNLISTED):
            await found.add_repo(model, write_pipeline(tmp_path / model.partition("/")[2]))
        yield found


async def allowed(port: Harbour) -> None:
    id_ = await port.deploy(cache_scope="shared")
    await port.until(id_, "ready")
    (endpoint,) = port.fake.endpoints
    env = endpoint.spec.env
    assert env["MOORAGE_CACHE_SCOPE"] == "shared"
    assert env["MOORAGE_CACHE_MANIFEST_URL"].startswith(f"{port.url}/v1/workers/mrg-")
    assert SECRET not in str(env)
    assert not [name for name in env if "SECRET_ACCESS_KEY" in name]
    await port.delete(id_)


@pytest.mark.parametrize("reject", [True, False])
async def test_a_model_that_is_not_listed_is_refused_or_just_not_cached(
    tmp_path: Path, fake: FakeRunPod, hub: HubStandIn, reject: bool
) -> None:
    async with harbour(
        tmp_path / "var",
        fake,
        hub,
        shared_cache_url="s3://platform/models",
        shared_cache_access_key_id="AKIAPLATFORM",
        shared_cache_secret_access_key=SECRET,
        shared_cache_allowed_models=f"other/model, {MODEL.upper()}",
        shared_cache_reject_unlisted=reject,
    ) as port:
        await allowed(port)
        body = {"hf_model_id": UNLISTED, "cache_scope": "shared"}
        answer = await port.user.post("/v1/deployments", json=body)
        if reject:
            assert (answer.status_code, answer.json()["code"]) == (422, "model_not_allowed_in_shared_cache")
            assert (await port.user.post("/v1/deployments/plan", json=body)).status_code == 422
            return
        id_ = answer.json()["deployment_id"]
        assert (await port.until(id_, "ready"))["cache_scope"] == "off"
        assert "MOORAGE_CACHE_SCOPE" not in port.fake.endpoints[0].spec.env
        await port.delete(id_)
