"""The fake as a process, and the test's door into it."""

from __future__ import annotations

import asyncio
import signal

import httpx

from .asking import CREATE, create, until_statuses
from .program import Started, spawn


async def test_it_serves_until_it_is_told_to_end(started: Started) -> None:
    fake = await started("--key", "rpa_one", "--key", "rpa_two", "--workers-quota", "3")
    assert fake.job_url == f"{fake.api_url}/v2"
    async with fake.client() as client:
        assert fake.key == "rpa_one"
        made = await create(client)
        told = await client.post(made["requestUrls"]["runSync"], json={"input": {"moorage": "warm_up"}})
        assert told.json()["output"]["ready"] is True
        assert (await client.post("/v2/serverless", json=CREATE)).status_code == 400  # over quota
        other = {"Authorization": "Bearer rpa_two"}
        assert (await client.post("/v2/serverless", json=CREATE, headers=other)).status_code == 201
    fake.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(fake.process.wait(), 20) == 0


async def test_the_door(started: Started) -> None:
    fake = await started()
    async with fake.client() as client:
        control = fake.control_url
        faults = {
            "throttled_pools": ["AMPERE_24"],
            "routes": [{"route": "POST /v2/serverless", "kind": "lost_answer", "times": 1}],
        }
        assert (await client.post(f"{control}/faults", json=faults)).status_code == 200
        try:
            await client.post("/v2/serverless", json=CREATE | {"workers": {"min": 1}})
        except httpx.RemoteProtocolError:
            pass
        else:
            raise AssertionError("the answer was not lost")
        [made] = (await client.get("/v2/serverless")).json()["endpoints"]
        await until_statuses(client, made, "THROTTLED")
        assert (await client.delete(f"{control}/faults")).status_code == 200
        await until_statuses(client, made, "IDLE")
        refused = await client.post(f"{control}/faults", json={"nonsense": 1})
        assert (refused.status_code, refused.text[:14]) == (400, "unknown fault ")

        stock = {"stock": {"ADA_24": "LOW"}, "prices": {"ADA_24": 2.5}}
        assert (await client.post(f"{control}/catalog", json=stock)).status_code == 200
        wrong = await client.post(f"{control}/catalog", json={"stock": {"ADA_24": "PLENTY"}})
        assert wrong.status_code == 400
        query = {"include": "AVAILABILITY", "product": "SERVERLESS"}
        gpu = (await client.get("/v2/catalog/gpus/NVIDIA GeForce RTX 4090", params=query)).json()
        assert (gpu["availability"], gpu["price"]["serverless"]) == ("LOW", 2.5)

        account = {"name": "guest", "key": "rpa_guest", "scopes": ["serverless:read"], "workers_quota": 1}
        assert (await client.post(f"{control}/accounts", json=account)).status_code == 200
        guest = {"Authorization": "Bearer rpa_guest"}
        assert (await client.get("/v2/serverless", headers=guest)).json() == {"endpoints": []}
        assert (await client.post("/v2/serverless", json=CREATE, headers=guest)).status_code == 403

        body = {"endpoint": "painter", "workers_max": 0}
        assert (await client.post(f"{control}/drift", json=body)).json() == {"changed": 1}
        await until_statuses(client, made)
        await client.post("/v2/serverless", json={})
        state = (await client.get(f"{control}/state")).json()
        assert (state["creates"], state["deletes"], state["running_workers"]) == (1, 0, 0)
        assert [e["name"] for e in state["endpoints"]] == ["painter"]
        assert state["broken_answers"] == []
        [invalid] = state["invalid_requests"]
        assert "$: missing property 'name'" in invalid["errors"]
        requests = (await client.get(f"{control}/requests")).json()["requests"]
        assert requests[0]["body"]["name"] == "painter"


async def test_a_command_that_is_none() -> None:
    process = await spawn("--image", "acme/worker:1")
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"--image acme/worker:1: must be IMAGE=COMMAND" in errors
