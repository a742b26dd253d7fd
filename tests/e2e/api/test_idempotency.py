"""`Idempotency-Key`: what is sent again happens once, and is answered as the first time."""

from __future__ import annotations

import asyncio
from typing import Any  # JSON of the API

import pytest

from moorage.domain.identity import Role

from .conftest import MODEL, Api, at_fault, problem

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = {"hf_model_id": MODEL}


async def test_twenty_at_once_make_one_deployment_and_get_one_answer(shared: Api) -> None:
    before = shared.rows()
    headers = {"idempotency-key": "twenty"}
    answers = await asyncio.gather(
        *(shared.owner.post("/v1/deployments", json=BODY, headers=headers) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["location"] for answer in answers}) == 1
    replayed = [answer for answer in answers if answer.headers.get("idempotent-replayed") == "true"]
    assert len(replayed) == 19
    after = shared.rows()
    assert after["deployments"] == before["deployments"] + 1
    assert after["idempotency_records"] == before["idempotency_records"] + 1


async def test_twenty_at_once_of_one_name_make_one_and_the_rest_are_replays(shared: Api) -> None:
    """Each twin meets the name that the first took; that is no clash with somebody else."""
    before = shared.rows()["deployments"]
    body, headers = {**BODY, "name": "twins"}, {"idempotency-key": "twenty-named"}
    answers = await asyncio.gather(
        *(shared.owner.post("/v1/deployments", json=body, headers=headers) for _ in range(20))
    )
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, answers[0].content)}
    assert shared.rows()["deployments"] == before + 1


async def test_the_same_key_later_repeats_the_answer_whatever_became_of_it(shared: Api) -> None:
    headers = {"idempotency-key": "again"}
    first = await shared.owner.post("/v1/deployments", json=BODY, headers=headers)
    assert "idempotent-replayed" not in first.headers
    id_ = first.json()["deployment_id"]
    await shared.until(id_, "ready")
    await shared.owner.delete(f"/v1/deployments/{id_}")
    await shared.until(id_, "deleted")
    second = await shared.owner.post("/v1/deployments", json=BODY, headers=headers)
    assert (second.status_code, second.content) == (202, first.content)
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]


async def test_a_key_with_another_request_is_a_clash_and_does_nothing(shared: Api) -> None:
    headers = {"idempotency-key": "reused"}
    assert (await shared.owner.post("/v1/deployments", json=BODY, headers=headers)).status_code == 202
    before = shared.rows()["deployments"], shared.rows()["api_keys"]
    others: list[tuple[str, dict[str, Any]]] = [
        ("/v1/deployments", {**BODY, "min_replicas": 2}),
        ("/v1/keys", {"name": "ci"}),
    ]
    for path, body in others:
        answer = await shared.owner.post(path, json=body, headers=headers)
        found = at_fault(answer, 409, "header.Idempotency-Key", "reused")
        assert found["code"] == "idempotency_key_reused"
    assert (shared.rows()["deployments"], shared.rows()["api_keys"]) == before


async def test_another_principal_of_the_organization_is_not_shown_the_answer(shared: Api) -> None:
    headers = {"idempotency-key": "mine-alone"}
    made = await shared.owner.post("/v1/keys", json={"name": "ci"}, headers=headers)
    async with shared.client(f"Bearer {await shared.key(Role.ADMIN)}") as admin:
        answer = await admin.post("/v1/keys", json={"name": "ci"}, headers=headers)
    problem(answer, 409, "idempotency_key_reused")
    assert made.json()["key"] not in answer.text


async def test_a_refused_request_is_not_remembered(shared: Api) -> None:
    headers = {"idempotency-key": "second-try"}
    wrong = await shared.owner.post("/v1/deployments", json={"hf_model_id": "moorage/later"}, headers=headers)
    problem(wrong, 422, "model_not_found")
    right = await shared.owner.post("/v1/deployments", json=BODY, headers=headers)
    assert right.status_code == 202
    assert "idempotent-replayed" not in right.headers


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "é".encode(), b"\xff"], ids=repr)
async def test_a_malformed_key_is_refused_and_nothing_happens(shared: Api, key: str | bytes) -> None:
    before = shared.rows()
    headers = {b"idempotency-key": key.encode() if isinstance(key, str) else key}
    for path, body in (
        ("/v1/deployments", BODY),
        ("/v1/keys", {"name": "ci"}),
        ("/v1/webhook-secret/rotate", None),
    ):
        answer = await shared.owner.post(path, json=body, headers=headers)
        at_fault(answer, 422, "header.Idempotency-Key", "format")
    assert shared.rows() == before


async def test_a_rotation_and_a_key_are_repeated_too(shared: Api) -> None:
    requests: list[tuple[str, dict[str, Any] | None]] = [
        ("/v1/webhook-secret/rotate", None),
        ("/v1/keys", {"name": "once"}),
    ]
    for path, body in requests:
        headers = {"idempotency-key": f"once{path.replace('/', '-')}"}
        answers = [await shared.owner.post(path, json=body, headers=headers) for _ in range(2)]
        assert answers[0].content == answers[1].content
        assert [a.headers.get("idempotent-replayed") for a in answers] == [None, "true"]
