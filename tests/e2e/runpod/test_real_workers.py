"""Real `runpod` worker processes with real torch engines behind the fake RunPod: a picture, and words.

Torch has an environment of its own: MOORAGE_TORCH_PYTHON names its interpreter; `make test-worker` sets it.
The models are tiny and random, made on the spot; everything else is as it would be.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any  # a job's output is JSON

import aiohttp
import pytest
from PIL import Image
from standardwebhooks import Webhook

from moorage.testing.hub import HubStandIn
from moorage_runpod.settings import own_version
from moorage_runpod.testing import KEY, FakeRunPod

from .conftest import SETTINGS, Harbour, harbour

PYTHON = os.environ.get("MOORAGE_TORCH_PYTHON")
HARNESS = Path(__file__).parents[3] / "worker" / "tests"
PAINTER, CRITIC = "acme/tiny-painter", "acme/tiny-critic"
SIZE = 32  # pixels; steps of the tiny pipeline's own scale

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(300),
    pytest.mark.skipif(PYTHON is None, reason="MOORAGE_TORCH_PYTHON names no interpreter with torch"),
]


def make(builder: str, folder: Path) -> Path:
    """Runs a function of the worker's own harness where torch is."""
    assert PYTHON is not None
    code = (
        "import sys; from pathlib import Path; from worker_harness import tiny_torch; "
        f"tiny_torch.{builder}(Path(sys.argv[1]))"
    )
    environ = {**os.environ, "PYTHONPATH": str(HARNESS)}
    subprocess.run([PYTHON, "-c", code, str(folder)], check=True, env=environ, timeout=120)
    return folder


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make("tiny_diffusion", tmp_path_factory.mktemp("models") / "painter")
    (folder / "README.md").write_text("---\nlibrary_name: diffusers\npipeline_tag: text-to-image\n---\n")
    return folder


@pytest.fixture(scope="module")
def critic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make("tiny_text_classifier", tmp_path_factory.mktemp("models") / "critic")
    card = "---\nlibrary_name: transformers\npipeline_tag: text-classification\n---\n"
    (folder / "README.md").write_text(card)
    return folder


@pytest.fixture
async def hub(painter: Path, critic: Path) -> AsyncIterator[HubStandIn]:
    async with HubStandIn() as found:
        await found.add_repo(PAINTER, painter)
        await found.add_repo(CRITIC, critic)
        yield found


@pytest.fixture
async def fake() -> AsyncIterator[FakeRunPod]:
    command = [str(PYTHON), "-m", "moorage_worker"]
    images = {f"moorage/worker-{engine}:{own_version()}": command for engine in ("diffusers", "transformers")}
    async with FakeRunPod(images=images) as found:
        yield found
        assert [(r.name, r.errors) for r in found.invalid_requests] == []


@pytest.fixture
async def port(tmp_path: Path, fake: FakeRunPod, hub: HubStandIn) -> AsyncIterator[Harbour]:
    settings = {**SETTINGS, "CAPACITY_SECONDS": "2"}
    async with harbour(tmp_path / "var", fake, hub, settings) as found:
        yield found
        assert [e.spec.name for e in fake.endpoints] == [], "nothing is left that bills"


def picture(output: Any) -> Image.Image:
    (media,) = output["outputs"]
    assert media["content_type"] == "image/png"
    found = Image.open(io.BytesIO(base64.b64decode(media["base64"])))
    assert found.size == (SIZE, SIZE)
    return found


ASKED = {
    "inputs": "a harbour at dawn",
    "parameters": {"width": SIZE, "height": SIZE, "num_inference_steps": 2, "seed": 7},
}


async def by_runpods_client(base: str, endpoint: str, key: str, asked: dict[str, Any]) -> Any:
    """Through the `runpod` package, as its users do it; it reads its base from the environment at import."""
    code = (
        "import sys, json, runpod; runpod.api_key = sys.argv[2]; "
        "job = runpod.Endpoint(sys.argv[1]).run(json.loads(sys.argv[3])); "
        "print(json.dumps(job.output(timeout=120)))"
    )
    assert PYTHON is not None
    environ = {**os.environ, "RUNPOD_ENDPOINT_BASE_URL": base}
    process = await asyncio.create_subprocess_exec(
        PYTHON, "-c", code, endpoint, key, json.dumps({"input": asked}), env=environ, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    return json.loads(out.splitlines()[-1])


async def test_a_picture_from_the_key_to_nothing_left(port: Harbour) -> None:
    offers = (await port.user.get("/v1/gpus")).json()["items"]
    port.fake.faults.throttled_pools = frozenset({offers[0]["id"]})
    id_ = await port.deploy(hf_model_id=PAINTER, user_webhook_url=port.hook)
    ready = await port.until(id_, "ready", "failed", seconds=120)
    assert (ready["status"], ready["attempts"]) == ("ready", 2), ready["error"]
    told = await port.told(id_, "worker.ready")  # a report goes its own way beside the jobs
    assert told["data"]["from_cache"] is False
    assert (await port.read(id_))["loading"]["state"] == "ready"
    assert "worker.loading" in await port.happened(id_)

    secret = (await port.user.get("/v1/webhook-secret")).json()["secret"]
    types = []
    for headers, body in port.messages:
        Webhook(secret).verify(body, dict(headers))
        types.append(json.loads(body)["type"])
    assert "deployment.ready" in types

    answer = await port.user.post(f"/v1/models/{id_}/infer", json=ASKED, timeout=120)
    assert answer.status_code == 200, answer.text
    first = picture(answer.json()).tobytes()

    (endpoint,) = port.fake.endpoints
    direct = await by_runpods_client(port.fake.job_url, endpoint.id, KEY, ASKED)
    assert picture(direct).tobytes() == first, "the same seed is the same picture"
    through = await by_runpods_client(f"{port.url}/v2", id_, KEY, ASKED)
    assert picture(through).tobytes() == first

    sync = await port.user.post(f"/v2/{id_}/runsync", json={"input": ASKED}, timeout=120)
    assert sync.json()["status"] == "COMPLETED", sync.text
    assert picture(sync.json()["output"]).tobytes() == first

    wrong = await port.user.post(f"/v1/models/{id_}/infer", json={"inputs": "x", "parameters": {"seed": "y"}})
    assert wrong.status_code == 422, wrong.text
    assert wrong.json()["errors"][0]["field"] == "parameters.seed"
    await port.delete(id_)
    assert port.fake.endpoints == []


async def test_words_are_judged_behind_a_load_balancer(port: Harbour) -> None:
    id_ = await port.deploy(hf_model_id=CRITIC, endpoint_type="load_balancer", gpu_tier=None)
    ready = await port.until(id_, "ready", "failed", seconds=120)
    assert ready["status"] == "ready", ready["error"]
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http,
        http.post(f"{port.url}/v1/models/{id_}/infer", json={"inputs": "a most agreeable harbour"}) as answer,
    ):
        assert answer.status == 200, await answer.text()
        (best, *_) = (await answer.json())["outputs"]
    assert 0 <= best["score"] <= 1
    await port.delete(id_)


def of_no_such_class(painter: Path) -> Path:
    broken = Path(shutil.copytree(painter, painter.parent / "broken", dirs_exist_ok=True))
    index = json.loads((painter / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps({**index, "_class_name": "NoSuchPipeline"}))
    return broken


async def test_a_model_that_cannot_be_loaded_says_why_at_once(port: Harbour, painter: Path) -> None:
    """The worker's own words, long before anybody would have given up waiting."""
    broken = of_no_such_class(painter)
    await port.hub.add_repo("acme/broken-painter", broken)
    id_ = await port.deploy(hf_model_id="acme/broken-painter")
    failed = await port.until(id_, "failed", seconds=120)
    assert failed["error"]["code"] == "worker_failed"
    assert "NoSuchPipeline" in failed["error"]["detail"]
