"""The worker as a RunPod job handler: a real process with the real `runpod` loop, and the sample model."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any  # JSON of the job API

import httpx
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from moorage_runpod.testing import KEY, FakeRunPod

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
IMAGE = "acme/digits:1"
SECRET = "whsec_" + "c2VjcmV0LW9mLXRoaXMtZW5kcG9pbnQtb25seSEhISE="
BLANK = [[[0.0] * 8] * 8]


@pytest.fixture
async def fake() -> AsyncIterator[FakeRunPod]:
    async with FakeRunPod(images={IMAGE: [sys.executable, "-m", "moorage_worker"]}) as found:
        yield found


@pytest.fixture
async def reports() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A URL, and what workers said there: each report verified."""
    said: list[dict[str, Any]] = []

    async def receive(request: web.Request) -> web.Response:
        body = await request.text()
        Webhook(SECRET).verify(body, {name.lower(): value for name, value in request.headers.items()})
        said.append(json.loads(body))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/state", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/state", said
    await runner.cleanup()


async def until_told(said: list[dict[str, Any]], state: str) -> None:
    """A report goes its own way beside the jobs."""
    async with asyncio.timeout(10):
        while True:
            if any(report["state"] == state for report in said):
                return
            await asyncio.sleep(0.02)


async def endpoint(fake: FakeRunPod, http: httpx.AsyncClient, url: str, model: str = str(DIGITS)) -> str:
    env = {
        "MOORAGE_WORKER_MODEL": model,
        "MOORAGE_WORKER_FACE": "jobs",
        "MOORAGE_ENDPOINT_NAME": "mrg-digits",
        "MOORAGE_CALLBACK_URL": url,
        "MOORAGE_CALLBACK_SECRET": SECRET,
    }
    body = {
        "name": "digits",
        "type": "QUEUE",
        "image": IMAGE,
        "env": env,
        "gpu": {"pools": ["AMPERE_24"], "count": 1},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 1},
        "timeout": 60_000,
    }
    made = await http.post(f"{fake.api_url}/v2/serverless", json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def test_jobs_are_answered_and_states_are_told(
    fake: FakeRunPod, reports: tuple[str, list[dict[str, Any]]]
) -> None:
    url, said = reports
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=60) as http:
        id_ = await endpoint(fake, http, url)

        async def ask(job: dict[str, Any]) -> dict[str, Any]:
            answer = await http.post(f"{fake.job_url}/{id_}/runsync?wait=60000", json={"input": job})
            found: dict[str, Any] = answer.json()
            return found

        warm = await ask({"moorage": "warm_up"})  # taken while the model loads, answered when it is there
        assert (warm["status"], warm["output"]["ready"]) == ("COMPLETED", True)
        await until_told(said, "ready")
        assert said[0]["state"] == "loading"
        assert {report["endpoint"] for report in said} == {"mrg-digits"}

        done = await ask({"inputs": BLANK})
        assert done["output"]["model_id"] == "digits", done
        short = await ask({"prompt": BLANK, "top_k": 1})
        assert len(short["output"]["outputs"][0]) == 1
        wrong = await ask({"inputs": BLANK, "parameters": {"top_k": "many"}})
        assert wrong["status"] == "FAILED"
        told = json.loads(wrong["error"])
        assert (told["status"], told["errors"][0]["field"]) == (422, "parameters.top_k")
        assert SECRET not in json.dumps([warm, done, wrong, said])


async def test_a_model_that_cannot_be_loaded_says_why_to_all_who_wait(
    fake: FakeRunPod, reports: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    url, said = reports
    (tmp_path / "config.json").write_text("{}")
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=60) as http:
        id_ = await endpoint(fake, http, url, str(tmp_path))
        job = {"input": {"moorage": "warm_up"}}
        answer = (await http.post(f"{fake.job_url}/{id_}/runsync?wait=60000", json=job)).json()
    assert answer["status"] == "FAILED"
    assert "no engine can serve this model" in json.loads(answer["error"])["detail"]
    failed = [report for report in said if report["state"] == "failed"]
    assert "no engine can serve this model" in failed[0]["cause"]
