"""REST v2 of the fake: what RunPod takes, what it refuses, and in which words."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from moorage_runpod.testing import KEY, Account, FakeRunPod

from .asking import BALANCED, CREATE, create, statuses, until_statuses


async def test_a_life(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    made = await create(client, env={"MODEL": "acme/tiny"})
    assert made["env"] == {"MODEL": "acme/tiny"}
    assert made["requestUrls"]["run"] == f"{fake.job_url}/{made['id']}/run"
    one = f"/v2/serverless/{made['id']}"
    assert (await client.get(one)).json() == made
    assert (await client.get("/v2/serverless")).json() == {"endpoints": [made]}
    changed = await client.patch(one, json={"workers": {"max": 5}})
    assert changed.json() == made | {"workers": {"min": 0, "max": 5, "idleTimeout": 5}}
    gone = await client.delete(one)
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await client.get(one)).status_code == 404
    assert (await client.delete(one)).status_code == 404
    assert (fake.cloud.creates, fake.cloud.deletes) == (1, 1)


async def test_names_are_not_unique(client: httpx.AsyncClient) -> None:
    first, second = await create(client), await create(client)
    assert first["name"] == second["name"]
    assert first["id"] != second["id"]


async def test_a_timeout_that_is_left_out_reads_as_0(client: httpx.AsyncClient) -> None:
    body = {name: value for name, value in CREATE.items() if name not in ("timeout", "workers")}
    made = await create(client, body)
    assert made["timeout"] == 0
    assert made["workers"] == {"min": 0, "max": 3, "idleTimeout": 10}
    assert made["flashboot"] == "OFF"


def but(**changed: Any) -> dict[str, Any]:
    return {**CREATE, **changed}


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in CREATE.items() if name not in names}


REQUEST_COUNT = {"type": "REQUEST_COUNT", "requestCount": 2}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (without("name"), "$: missing property 'name'"),
        (without("image"), "$: missing property 'image'"),
        (but(imageName="x"), "$: additional properties 'imageName' not allowed"),
        (but(name=""), "$.name: "),
        (but(disk=0), "$.disk: "),
        (but(workers={"max": -1}), "$.workers.max: "),
        (but(workers={"idleTimeout": 3601}), "$.workers.idleTimeout: "),
        (but(gpu={"pools": []}), "$.gpu.pools: "),
        (but(scaling={"type": "QUEUE_DELAY", "queueDelay": 0.1}), "$.scaling: "),
        (but(type="LOAD_BALANCER"), "$.scaling"),
        (but(flashboot="ON"), "$.flashboot: "),
        (but(env={"A": 1}), "$.env.A: "),
    ],
)
async def test_what_the_document_refuses(
    fake: FakeRunPod, client: httpx.AsyncClient, body: dict[str, Any], error: str
) -> None:
    answer = await client.post("/v2/serverless", json=body)
    told = answer.json()
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert (told["title"], told["status"]) == ("Unprocessable Entity", 422)
    assert told["detail"] == "Request validation failed."
    assert any(text.startswith(error) for text in told["errors"]), told["errors"]
    assert [r.name for r in fake.invalid_requests] == ["POST /v2/serverless"]
    assert fake.endpoints == []


async def test_with_a_field_missing_every_other_one_is_called_additional(client: httpx.AsyncClient) -> None:
    errors = (await client.post("/v2/serverless", json=without("name"))).json()["errors"]
    assert errors[0] == "$: missing property 'name'"
    assert "'gpu'" in errors[-1]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (without("gpu"), 400, "exactly one of gpu or cpu"),
        (but(cpu=[{"id": "cpu3c", "vcpuCount": 2}]), 400, "exactly one of gpu or cpu"),
        (but(gpu={"pools": ["NVIDIA L4"]}), 400, "unknown gpu pool NVIDIA L4"),
        (but(gpu={"pools": ["AMPERE_24"], "excludedTypes": ["NVIDIA A40"]}), 400, "not in the listed pools"),
        (but(gpu={"pools": ["HOPPER_141"], "excludedTypes": ["NVIDIA H200"]}), 400, "leaves no gpu type"),
        (
            but(gpu={"pools": ["ADA_24"], "allowedCudaVersions": ["12.8"], "minCudaVersion": "12.4"}),
            400,
            "mutually exclusive",
        ),
        (but(scaling=REQUEST_COUNT), 422, "idleTimeout does not apply to queue-based endpoints"),
        (but(workers={"min": 4, "max": 3}), 400, "workers.min"),
        (but(dataCenterIds=["MARS-1"]), 400, "unknown data center MARS-1"),
        (but(networkVolumes=["nope"]), 400, "network volume nope not found"),
        (but(templateId="nope"), 404, "resource not found"),
        (
            {**without("gpu"), "cpu": [{"id": "cpu5c", "vcpuCount": 6}]},
            400,
            "vcpuCount must be a power of 2",
        ),
    ],
)
async def test_what_only_prose_refuses(
    fake: FakeRunPod, client: httpx.AsyncClient, body: dict[str, Any], status: int, detail: str
) -> None:
    answer = await client.post("/v2/serverless", json=body)
    assert answer.status_code == status
    assert detail in answer.json()["detail"]
    assert "errors" not in answer.json()
    assert fake.invalid_requests == []  # the document allows it
    assert fake.endpoints == []


async def test_an_endpoint_on_cpus(client: httpx.AsyncClient) -> None:
    made = await create(client, without("gpu"), cpu=[{"id": "cpu3c", "vcpuCount": 4}], workers={"min": 1})
    assert made["cpu"] == [{"id": "cpu3c", "vcpuCount": 4, "memory": 8}]
    assert "gpu" not in made
    await until_statuses(client, made, "IDLE")
    refused = await client.patch(f"/v2/serverless/{made['id']}", json={"gpu": {"pools": ["ADA_24"]}})
    assert (refused.status_code, refused.json()["title"]) == (400, "Bad Request")


async def test_the_quota_is_over_all_endpoints_of_an_account(
    client: httpx.AsyncClient, fake: FakeRunPod
) -> None:
    fake.accounts[0].workers_quota = 10
    made = await create(client, workers={"max": 7})
    refused = await client.post("/v2/serverless", json=CREATE | {"workers": {"max": 4}})
    assert refused.status_code == 400
    assert refused.json()["detail"] == (
        "Max workers across all endpoints must not exceed your workers quota (10). Reduce the max workers for"
        " other endpoints or lower the max worker count for this endpoint to at most 3."
    )
    await create(client, workers={"max": 3})
    one = f"/v2/serverless/{made['id']}"
    assert (await client.patch(one, json={"workers": {"max": 8}})).status_code == 400
    assert (await client.patch(one, json={"workers": {"max": 6}})).status_code == 200
    fake.faults.workers_quota = 0
    assert "(0)" in (await client.post("/v2/serverless", json=CREATE)).json()["detail"]


async def test_a_template_is_resolved_once_and_the_body_wins(client: httpx.AsyncClient) -> None:
    template = {
        "name": "base",
        "image": "acme/base:1",
        "env": {"A": "template", "B": "template"},
        "disk": 50,
        "serverless": True,
        "allowedCudaVersions": ["12.8"],
    }
    told = (await client.post("/v2/templates", json=template)).json()
    made = await create(client, without("image"), templateId=told["id"], env={"B": "body"})
    assert (made["image"], made["disk"]) == ("acme/base:1", 50)
    assert made["env"] == {"A": "template", "B": "body"}
    assert made["gpu"]["allowedCudaVersions"] == ["12.8"]
    assert "templateId" not in made
    await client.patch(f"/v2/templates/{told['id']}", json={"image": "acme/base:2"})
    assert (await client.get(f"/v2/serverless/{made['id']}")).json()["image"] == "acme/base:1"
    assert (await client.delete(f"/v2/templates/{told['id']}")).status_code == 204
    assert (await client.get("/v2/templates")).json() == {"templates": []}


async def test_a_pod_template_is_refused(client: httpx.AsyncClient) -> None:
    told = (await client.post("/v2/templates", json={"name": "pod", "image": "acme/pod:1"})).json()
    refused = await client.post("/v2/serverless", json=CREATE | {"templateId": told["id"]})
    assert refused.status_code == 422


async def test_network_volumes_hold_an_endpoint_to_their_data_center(client: httpx.AsyncClient) -> None:
    async def volume(center: str) -> httpx.Response:
        body = {"name": "weights", "size": 20, "dataCenter": center}
        return await client.post("/v2/network-volumes", json=body)

    refused = await volume("US-GA-1")
    assert refused.status_code == 400
    assert "EU-RO-1" in refused.json()["detail"]
    first, second = (await volume("EU-CZ-1")).json(), (await volume("EU-CZ-1")).json()
    assert (await client.get(f"/v2/network-volumes/{first['id']}")).json() == first
    both = await client.post("/v2/serverless", json=but(networkVolumes=[first["id"], second["id"]]))
    assert "only one network volume per data center" in both.json()["detail"]
    apart = but(networkVolumes=[first["id"]], dataCenterIds=["US-KS-2"])
    assert (await client.post("/v2/serverless", json=apart)).status_code == 400
    made = await create(client, networkVolumes=[first["id"]], workers={"min": 1})
    await until_statuses(client, made, "IDLE")
    [worker] = (await client.get(f"/v2/serverless/{made['id']}/workers")).json()["workers"]
    assert worker["dataCenterId"] == "EU-CZ-1"


async def test_pools_without_excluded_types_clear_them(client: httpx.AsyncClient) -> None:
    made = await create(client, gpu={"pools": ["AMPERE_24"], "excludedTypes": ["NVIDIA L4"]})
    one = f"/v2/serverless/{made['id']}"
    assert made["gpu"]["excludedTypes"] == ["NVIDIA L4"]
    kept = await client.patch(one, json={"gpu": {"count": 2}})
    assert kept.json()["gpu"]["excludedTypes"] == ["NVIDIA L4"]
    assert (await client.patch(one, json={"gpu": {"excludedTypes": ["NVIDIA L4"]}})).status_code == 422
    cleared = await client.patch(one, json={"gpu": {"pools": ["AMPERE_24"]}})
    assert "excludedTypes" not in cleared.json()["gpu"]


async def test_a_balanced_endpoint_keeps_counting_requests(client: httpx.AsyncClient) -> None:
    made = await create(client, BALANCED)
    assert set(made["requestUrls"]) == {"base", "health"}
    delay = {"scaling": {"type": "QUEUE_DELAY", "queueDelay": 4}}
    assert (await client.patch(f"/v2/serverless/{made['id']}", json=delay)).status_code == 400


async def test_a_new_image_is_a_release_that_rolls_out(client: httpx.AsyncClient) -> None:
    made = await create(client, workers={"min": 2})
    await until_statuses(client, made, "IDLE", "IDLE")
    one = f"/v2/serverless/{made['id']}"
    await client.patch(one, json={"workers": {"max": 4}})
    assert (await client.get(f"{one}/releases")).json()["endpointVersion"] == 1
    await client.patch(one, json={"image": "acme/worker:2"})
    told = (await client.get(f"{one}/releases")).json()
    assert [r["version"] for r in told["releases"]] == [2, 1]
    assert told["releases"][0]["diff"] == [
        {"field": "template.imageName", "old": "acme/worker:1", "new": "acme/worker:2"}
    ]
    await until_statuses(client, made, "IDLE", "IDLE")
    told = (await client.get(f"{one}/releases")).json()
    assert told["rollout"]["percentOnLatest"] == 100
    workers = (await client.get(f"{one}/workers")).json()["workers"]
    assert {w["image"] for w in workers} == {"acme/worker:2"}


async def test_who_may(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    fake.accounts[0].keys["rpa_reader"] = frozenset({"serverless:read"})
    fake.accounts.append(Account("other", {"rpa_other": frozenset({"*"})}))
    made = await create(client)

    async def ask(method: str, path: str, header: str, **more: Any) -> httpx.Response:
        return await client.request(method, path, headers={"Authorization": header}, **more)

    for header in ("", "Bearer", "Bearer rpa_nobody", KEY):  # REST wants the word Bearer
        answer = await ask("GET", "/v2/serverless", header)
        assert (answer.status_code, answer.json()["title"]) == (401, "Unauthorized")
        assert "ratelimit" not in answer.headers
    assert (await ask("GET", "/v2/serverless", "Bearer rpa_reader")).status_code == 200
    denied = await ask("POST", "/v2/serverless", "Bearer rpa_reader", json=dict(CREATE))
    assert (denied.status_code, denied.json()["detail"]) == (403, "access denied")
    assert "ratelimit" in denied.headers
    assert (await ask("GET", "/v2/catalog/gpus", "Bearer rpa_reader")).status_code == 403
    foreign = f"/v2/serverless/{made['id']}"
    for method in ("GET", "DELETE"):
        assert (await ask(method, foreign, "Bearer rpa_other")).status_code == 404
    assert (await ask("GET", "/v2/serverless", "Bearer rpa_other")).json() == {"endpoints": []}
    assert [r.account for r in fake.sent("GET /v2/serverless")][-2:] == ["default", "other"]


async def test_every_known_account_is_told_its_limits_until_they_end(
    fake: FakeRunPod, client: httpx.AsyncClient
) -> None:
    fake.accounts[0].limits = {"minute": 2, "hour": 1000, "day": 1000}
    fake.cloud.clock = lambda: 1_800_000_030.0  # half a minute is gone
    for left in (1, 0):
        answer = await client.get("/v2/catalog/gpus")
        assert answer.status_code == 200
        assert answer.headers["ratelimit"].startswith(f'"minute";r={left};t=30, "hour";r={998 + left};')
        assert (
            answer.headers["ratelimit-policy"]
            == '"minute";q=2;w=60, "hour";q=1000;w=3600, "day";q=1000;w=86400'
        )
        assert answer.headers["x-request-id"]
    refused = await client.get("/v2/catalog/gpus")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
    assert refused.json()["detail"] == "rate limit exceeded for the minute window"
    fake.cloud.clock = lambda: 1_800_000_060.0
    assert (await client.get("/v2/catalog/gpus")).status_code == 200


async def test_what_does_not_exist(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    for path in ("/v2/networkvolumes", "/v2/serverless/nope", "/v1/endpoints", "/v2/nope/run/more"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["detail"]) == (404, "resource not found")
    wrong = await client.put("/v2/serverless", json={})
    assert wrong.status_code == 405
    assert "POST" in wrong.headers["allow"]
    assert len(fake.invalid_requests) == 4  # an endpoint that is unknown is no invalid request


async def test_a_body_must_be_json(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    answer = await client.post("/v2/serverless", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert not fake.requests[0].valid


async def test_requests_are_kept_without_their_secrets(fake: FakeRunPod, client: httpx.AsyncClient) -> None:
    await create(client, env={"HF_TOKEN": "hf_secret"})
    [seen] = fake.requests
    assert (seen.method, seen.route, seen.status, seen.account) == ("POST", "/v2/serverless", 201, "default")
    assert seen.body["name"] == "painter"
    assert KEY not in repr(seen)
    assert "hf_secret" not in repr(seen)
    assert "Authorization" not in seen.headers


class TestCatalog:
    async def test_stock_is_told_to_who_asks_with_a_product(
        self, fake: FakeRunPod, client: httpx.AsyncClient
    ) -> None:
        fake.catalog.stock["AMPERE_24"] = "NONE"
        fake.catalog.prices["AMPERE_24"] = 0.5
        plain = (await client.get("/v2/catalog/gpus")).json()["gpus"]
        assert all("availability" not in gpu for gpu in plain)
        asked = {"include": "AVAILABILITY", "product": "SERVERLESS"}
        gpus = {g["id"]: g for g in (await client.get("/v2/catalog/gpus", params=asked)).json()["gpus"]}
        assert gpus["NVIDIA L4"]["availability"] == "NONE"
        assert "dataCenters" not in gpus["NVIDIA L4"]
        assert gpus["NVIDIA L4"]["price"]["serverless"] == 0.5
        assert gpus["NVIDIA A40"]["availability"] == "HIGH"
        assert gpus["NVIDIA T4"]["pool"] is None
        assert "serverless" not in gpus["NVIDIA T4"]["price"]

    async def test_countries_narrow_the_list(self, client: httpx.AsyncClient) -> None:
        asked = {"include": "AVAILABILITY", "product": "SERVERLESS", "countryCodes": "CZ"}
        gpus = (await client.get("/v2/catalog/gpus", params=asked)).json()["gpus"]
        assert "NVIDIA RTX A4000" not in {g["id"] for g in gpus}
        assert {d["id"] for g in gpus for d in g["dataCenters"]} == {"EU-CZ-1"}
        one = (await client.get("/v2/catalog/gpus/NVIDIA RTX A4000", params=asked)).json()
        assert one["availability"] == "NONE"

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("include=AVAILABILITY", 400),
            ("product=SERVERLESS", 400),
            ("count=2", 400),
            ("include=AVAILABILITY&product=SERVERLESS&cudaVersions=12.8&minCudaVersion=12", 400),
            ("include=EVERYTHING&product=SERVERLESS", 422),
            ("include=AVAILABILITY&product=MAINFRAME", 422),
            ("include=AVAILABILITY&product=SERVERLESS&count=0", 422),
            ("nonsense=1", 200),
        ],
    )
    async def test_what_may_be_asked(self, client: httpx.AsyncClient, query: str, status: int) -> None:
        assert (await client.get(f"/v2/catalog/gpus?{query}")).status_code == status

    async def test_one(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/v2/catalog/gpus/NVIDIA L4")).json()["pool"] == "AMPERE_24"
        assert (await client.get("/v2/catalog/gpus/NVIDIA L5")).status_code == 404


async def test_what_is_used_is_billed_by_endpoint_and_bucket(
    fake: FakeRunPod, client: httpx.AsyncClient
) -> None:
    at = 1_800_000_000.0
    fake.cloud.clock = lambda: at
    made = await create(client, workers={"min": 1})
    await until_statuses(client, made, "IDLE")
    fake.cloud.clock = lambda: at + 5400
    asked = {"bucketSize": "hour", "lastN": "3", "serverlessId": made["id"]}
    told = (await client.get("/v2/billing/serverless", params=asked)).json()
    assert len(told["records"]) == 2
    assert told["metadata"]["totals"]["gpuAmount"] == pytest.approx(0.69 * 1.5)
    assert told["metadata"]["uniqueServerlessCount"] == 1
    both = {"lastN": "1", "startTime": "2026-01-01T00:00:00Z"}
    assert (await client.get("/v2/billing/serverless", params=both)).status_code == 400
    none = {"startTime": "2020-01-01T00:00:00Z", "endTime": "2020-02-01T00:00:00Z", "bucketSize": "month"}
    told = (await client.get("/v2/billing/serverless", params=none)).json()
    assert (told["records"], told["metadata"]["query"]["endTime"]) == ([], "2020-02-01T00:00:00Z")
    assert await statuses(client, made) == ["IDLE"]


async def test_a_fake_that_breaks_the_document_fails_loudly() -> None:
    async def misuse() -> None:
        async with FakeRunPod() as fake, httpx.AsyncClient(base_url=fake.api_url) as client:
            fake.catalog.prices["AMPERE_24"] = "cheap"  # type: ignore[assignment]  # on purpose
            answer = await client.get("/v2/catalog/gpus", headers={"Authorization": f"Bearer {KEY}"})
            assert answer.status_code == 500
            assert "against the document" in answer.json()["detail"]

    with pytest.raises(AssertionError, match=r"price\.serverless"):
        await misuse()
