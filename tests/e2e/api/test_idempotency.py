"""`Idempotency-Key` over HTTP: a POST that is sent again does not happen again, on every route that takes it.

That a crash between the write and its answer loses neither is shown by the crash tests; here it is
repetition, races, misuse, and what may be remembered.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any  # JSON of the API

import httpx
import pytest

from moorage.api.byoc import PREFIX as BYOC
from moorage.api.clusters import PREFIX as CLUSTERS
from moorage.domain.delivery import Delivery, DeliveryState
from moorage.ports.store import Insert
from moorage.testing.provider import cpu_offer

from .conftest import MODEL, VENDOR_TOKEN, Api

DEPLOYMENTS = "/v1/deployments"
ROTATE = "/v1/webhook-secret/rotate"
RESEND = "/v1/deliveries/{delivery_id}/resend"
Body = Mapping[str, Any]

# Every POST that takes the header, with a body that it accepts; and those that change nothing.
TAKING: dict[str, Body | None] = {
    DEPLOYMENTS: {"hf_model_id": MODEL},
    "/v1/keys": {"name": "ci", "role": "deployer"},
    "/v1/credentials": {"provider": "vendor", "name": "main", "values": {"token": VENDOR_TOKEN}},
    "/models": {"name": "a-model", "version": "1", "hf_model_id": MODEL},
    ROTATE: None,
    RESEND: None,
    "/v2/{deployment}/run": {"input": {"inputs": 1}},
    "/v2/{deployment}/runsync": {"input": {"inputs": 1}},
}
WITHOUT = {
    "/v2/{deployment}/cancel/{job}",  # cancelling again does nothing again
    "/v2/{deployment}/purge-queue",
    "/v1/deployments/plan",
    *(f"/v1/deployments/{{deployment_id}}/{wish}" for wish in ("scale", "stop", "start", "wake")),  # too
    "/v1/models/{model}/infer",
    "/auth/token",
    "/v1/workers/{endpoint}/state",  # a report that is repeated says the same
}


async def post(api: Api, path: str, body: Body | None, key: str | bytes, **headers: str) -> httpx.Response:
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    raw[b"idempotency-key"] = key.encode() if isinstance(key, str) else key
    return await api.owner.post(path, json=body, headers=raw)


def is_replay(answer: httpx.Response) -> bool:
    return "idempotent-replayed" in answer.headers


def written(api: Api) -> dict[str, int]:
    """Rows that only requests write; the engine goes on writing events."""
    tables = (
        "deployments",
        "api_keys",
        "provider_credentials",
        "idempotency_records",
        "jobs",
        "model_versions",
    )
    return {table: count for table, count in api.rows().items() if table in tables}


async def listed(api: Api, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await api.owner.get(path)).json()["items"]
    return items


async def delivered(api: Api) -> str:
    """The id of a delivery that can be sent again: one that is over."""
    owner = await api.service.store.user_named("owner")
    assert owner is not None
    id_, now = api.service.new_id("msg"), api.service.clock.now()
    hook, state = "https://127.0.0.1:9/hook", DeliveryState.DELIVERED
    made = Delivery(id_, owner.organization_id, "dep_x", "deployment.ready", hook, "{}", now, state)
    await api.service.store.commit([Insert(made)])
    return id_


async def test_every_post_takes_the_header_or_changes_nothing(api: Api) -> None:
    paths = (await api.owner.get("/openapi.json")).json()["paths"]
    posts = {path: methods["post"] for path, methods in paths.items() if "post" in methods}
    elsewhere = (BYOC, CLUSTERS)  # in `test_byoc` and `test_clusters`
    posts = {path: post for path, post in posts.items() if not path.startswith(elsewhere)}
    taking = {
        path
        for path, post in posts.items()
        if any(parameter["name"] == "Idempotency-Key" for parameter in post.get("parameters", ()))
    }
    assert taking == TAKING.keys()
    assert posts.keys() - taking == WITHOUT


async def test_a_repetition_gets_the_first_answer_and_does_nothing(
    api: Api, subtests: pytest.Subtests
) -> None:
    delivery_id = await delivered(api)
    await api.until(await api.deploy(name="digits"), "ready")
    for template, body in TAKING.items():
        with subtests.test(template):
            path = template.format(delivery_id=delivery_id, deployment="digits")
            first = await post(api, path, body, f"key-{template}")
            assert first.is_success, first.text
            assert not is_replay(first)
            before = written(api)
            for _ in range(2):
                again = await post(api, path, body, f"key-{template}")
                assert (again.status_code, again.content) == (first.status_code, first.content)
                assert again.headers.get("location") == first.headers.get("location")
                assert is_replay(again)
            assert written(api) == before
    assert [key["name"] for key in await listed(api, "/v1/keys")] == ["ci"]
    secret = (await api.owner.get("/v1/webhook-secret")).json()
    assert secret == (await post(api, ROTATE, None, f"key-{ROTATE}")).json(), "rotated once"
    told = await api.service.store.events("dep_x", None, 100)
    assert [event.type for event in told].count("webhook.resent") == 1


async def test_without_a_key_each_request_counts(api: Api) -> None:
    for _ in range(2):
        assert not is_replay(await api.owner.post(DEPLOYMENTS, json={"hf_model_id": MODEL}))
    assert api.rows()["deployments"] == 2
    assert api.rows()["idempotency_records"] == 0


@pytest.mark.parametrize("name", [None, "digits"])
async def test_twenty_at_once_are_one(api: Api, name: str | None) -> None:
    """Also when the losers of the race would have been refused, because the winner took the name."""
    body = {"hf_model_id": MODEL} if name is None else {"hf_model_id": MODEL, "name": name}
    answers = await asyncio.gather(*(post(api, DEPLOYMENTS, body, "at-once") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert Counter(map(is_replay, answers)) == {True: 19, False: 1}
    (only,) = await listed(api, DEPLOYMENTS)
    await api.until(only["deployment_id"], "ready")
    assert sum(api.compute.creates.values()) == 1


async def test_twenty_at_once_with_other_bodies_are_one_and_nineteen_mistakes(api: Api) -> None:
    bodies = [{"hf_model_id": MODEL, "name": f"digits-{number}"} for number in range(20)]
    answers = await asyncio.gather(*(post(api, DEPLOYMENTS, body, "at-once") for body in bodies))
    assert Counter(answer.status_code for answer in answers) == {202: 1, 409: 19}
    (only,) = await listed(api, DEPLOYMENTS)
    (taken,) = [answer.json()["name"] for answer in answers if answer.status_code == 202]
    assert only["name"] == taken


@pytest.mark.parametrize("path", ["/v1/keys", ROTATE])
async def test_twenty_at_once_are_one_on_other_routes(api: Api, path: str) -> None:
    answers = await asyncio.gather(*(post(api, path, TAKING[path], "at-once") for _ in range(20)))
    assert {answer.is_success for answer in answers} == {True}
    assert len({answer.content for answer in answers}) == 1
    assert Counter(map(is_replay, answers)) == {True: 19, False: 1}


async def test_a_key_that_came_with_another_request_is_refused(api: Api, subtests: pytest.Subtests) -> None:
    first = await post(api, DEPLOYMENTS, {"hf_model_id": MODEL}, "used")
    made = await api.owner.post("/v1/keys", json={"name": "other", "role": "owner"})
    other = f"Bearer {made.json()['key']}"
    for what, path, body, headers in (
        ("another body", DEPLOYMENTS, {"hf_model_id": MODEL, "min_replicas": 2}, {}),
        ("another route", "/v1/keys", {"name": "ci"}, {}),
        ("another caller", DEPLOYMENTS, {"hf_model_id": MODEL}, {"authorization": other}),
    ):
        with subtests.test(what):
            answer = await post(api, path, body, "used", **headers)
            assert answer.status_code == 409, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            found = answer.json()
            assert found["code"] == "idempotency_key_reused"
            assert [(e["field"], e["rule"]) for e in found["errors"]] == [
                ("header.Idempotency-Key", "reused")
            ]
            assert found["advice"]
            assert first.json()["deployment_id"] not in answer.text
    assert api.rows()["deployments"] == 1
    assert [key["name"] for key in await listed(api, "/v1/keys")] == ["other"]


async def test_another_organization_has_its_own_keys(api: Api) -> None:
    authorization = await api.stranger()
    ours = await post(api, DEPLOYMENTS, {"hf_model_id": MODEL}, "same")
    theirs = await post(api, DEPLOYMENTS, {"hf_model_id": MODEL}, "same", authorization=authorization)
    assert (ours.status_code, theirs.status_code) == (202, 202)
    assert not is_replay(theirs)
    assert ours.json()["deployment_id"] != theirs.json()["deployment_id"]


async def test_a_malformed_key_is_refused_on_every_route(api: Api, subtests: pytest.Subtests) -> None:
    delivery_id = await delivered(api)
    await api.until(await api.deploy(name="digits"), "ready")
    before = written(api)
    for template, body in TAKING.items():
        for bad in ("", "two words", "x" * 256, "é".encode("latin-1"), "clé".encode(), b"\xff"):
            with subtests.test(f"{template} {bad!r}"[:60]):
                path = template.format(delivery_id=delivery_id, deployment="digits")
                answer = await post(api, path, body, bad)
                assert answer.status_code == 422, answer.text
                assert answer.headers["content-type"] == "application/problem+json"
                (error,) = answer.json()["errors"]
                assert (error["field"], error["rule"]) == ("header.Idempotency-Key", "format")
    assert written(api) == before
    assert (await post(api, DEPLOYMENTS, TAKING[DEPLOYMENTS], "x" * 255)).status_code == 202


async def test_a_refused_request_is_not_remembered(api: Api) -> None:
    """What was in the way is gone; the same request under the same key is a new try."""
    first = await api.deploy(name="digits")
    await api.until(first, "ready")
    body = {"hf_model_id": MODEL, "name": "digits", "min_replicas": 2}
    taken = await post(api, DEPLOYMENTS, body, "again")
    assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")
    offers = list(api.compute.offers)
    api.compute.offers[:] = [cpu_offer("tiny", provider="fake", memory_gb=0.1)]
    other = {"hf_model_id": MODEL, "concurrency": 2}
    refused = await post(api, DEPLOYMENTS, other, "no-room")
    assert (refused.status_code, refused.json()["code"]) == (422, "does_not_fit"), refused.text
    assert api.rows()["idempotency_records"] == 0
    api.compute.offers[:] = offers
    assert (await api.owner.delete(f"{DEPLOYMENTS}/{first}")).status_code == 204
    await api.until(first, "deleted")
    for again, key in ((body, "again"), (other, "no-room")):
        accepted = await post(api, DEPLOYMENTS, again, key)
        assert (accepted.status_code, is_replay(accepted)) == (202, False), accepted.text
    assert api.rows()["idempotency_records"] == 2


async def test_an_answer_outlives_what_it_made(api: Api) -> None:
    first = await post(api, DEPLOYMENTS, {"hf_model_id": MODEL}, "kept")
    id_ = first.json()["deployment_id"]
    assert (await api.owner.delete(f"{DEPLOYMENTS}/{id_}")).status_code == 204
    await api.until(id_, "deleted")
    again = await post(api, DEPLOYMENTS, {"hf_model_id": MODEL}, "kept")
    assert (again.content, is_replay(again)) == (first.content, True)
    assert api.rows()["deployments"] == 1, "a late repetition must not make it anew"


async def test_a_remembered_answer_is_sealed(api: Api) -> None:
    """The key that is shown once is shown again to who repeats the request, and read by nobody else."""
    made = (await post(api, "/v1/keys", TAKING["/v1/keys"], "sealed")).json()
    files = [file.read_bytes() for file in api.service.settings.data_dir.glob("moorage.db*")]
    assert any(made["id"].encode() in content for content in files), "else this proves nothing"
    assert not any(made["key"].encode() in content for content in files)
