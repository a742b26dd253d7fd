"""Webhooks from the receiver's side: signed by the standard, and told of what the owner is told of.

The judge of signatures is the `standardwebhooks` package, which is not ours.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any  # JSON of the API

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from moorage.domain import delivery, webhook_signature

from .conftest import MODEL, Api, Message, problem

SECRET = "/v1/webhook-secret"


async def secret_of(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = (await api.owner.get(SECRET)).json()
    return found


def verified(secret: str, message: Message) -> dict[str, Any]:
    found: dict[str, Any] = Webhook(secret).verify(message.body, message.headers)
    return found


async def test_ready_is_told_and_verifies(api: Api) -> None:
    id_ = await api.deploy(user_webhook_url=api.receiver.hook)
    message = await api.receiver.of_type("deployment.ready")
    told = verified((await secret_of(api))["secret"], message)
    assert told.keys() == {"type", "timestamp", "data"}
    assert told["data"]["deployment_id"] == id_
    assert told["data"]["status"] == "ready"
    assert told["data"]["endpoint_url"] == f"{api.url}/v1/models/{id_}/infer"
    assert told["data"].keys() == (await api.read(id_)).keys(), "the deployment as it reads"
    assert message.headers["content-type"] == "application/json"
    answer = await api.owner.post(told["data"]["endpoint_url"], json={"inputs": [1, 2]})
    assert answer.json()["outputs"] == [1, 2], "and what it says is true"


async def test_every_phase_is_told_once(api: Api) -> None:
    id_ = await api.deploy(user_webhook_url=api.receiver.hook)
    await api.receiver.of_type("deployment.ready")
    await api.owner.delete(f"/v1/deployments/{id_}")
    await api.receiver.of_type("deployment.deleted")
    types = [message.json["type"] for message in api.receiver.messages]
    assert len(types) == len(set(types))
    assert {"deployment.validating", "deployment.ready", "deployment.deleted"} <= set(types)
    ids = [message.headers["webhook-id"] for message in api.receiver.messages]
    listed = (await api.owner.get("/v1/deliveries", params={"deployment_id": id_})).json()["items"]
    assert sorted(ids) == sorted(item["id"] for item in listed)


async def test_failed_is_told_with_the_reason_and_verifies(api: Api) -> None:
    api.compute.faults.crash_loop.add("cpu")
    id_ = await api.deploy(user_webhook_url=api.receiver.hook)
    told = verified((await secret_of(api))["secret"], await api.receiver.of_type("deployment.failed"))
    assert told["data"]["deployment_id"] == id_
    assert told["data"]["status"] == "failed"
    assert told["data"]["error"]["code"]
    assert "crashes" in str(told["data"]["error"]), "the worker's last words"
    assert not api.compute.endpoints, "and nothing is left that bills"


async def test_a_message_that_was_changed_or_signed_by_another_does_not_verify(api: Api) -> None:
    await api.deploy(user_webhook_url=api.receiver.hook)
    message = await api.receiver.of_type("deployment.ready")
    secret = (await secret_of(api))["secret"]
    with pytest.raises(WebhookVerificationError):
        verified(secret, Message(message.headers, message.body.replace(b'"ready"', b'"failed"')))
    with pytest.raises(WebhookVerificationError):
        verified(secret, Message({**message.headers, "webhook-id": "msg_other"}, message.body))
    with pytest.raises(WebhookVerificationError):
        verified("whsec_" + "A" * 32, message)


async def test_after_a_rotation_both_secrets_verify(api: Api) -> None:
    old = (await secret_of(api))["secret"]
    rotated = (await api.owner.post(f"{SECRET}/rotate")).json()
    assert rotated["previous"] == old
    assert rotated["secret"] != old
    assert rotated["previous_expires_at"] > rotated["created_at"]
    assert await secret_of(api) == rotated
    await api.deploy(user_webhook_url=api.receiver.hook)
    message = await api.receiver.of_type("deployment.ready")
    assert verified(old, message) == verified(rotated["secret"], message)


async def test_a_second_rotation_leaves_one_previous_secret(api: Api) -> None:
    first = (await secret_of(api))["secret"]
    second = (await api.owner.post(f"{SECRET}/rotate")).json()["secret"]
    third = (await api.owner.post(f"{SECRET}/rotate")).json()
    assert third["previous"] == second
    await api.deploy(user_webhook_url=api.receiver.hook)
    message = await api.receiver.of_type("deployment.ready")
    verified(second, message)
    with pytest.raises(WebhookVerificationError):
        verified(first, message)


async def test_deliveries_are_listed_with_what_came_back(api: Api) -> None:
    api.receiver.status = 500
    id_ = await api.deploy(user_webhook_url=api.receiver.hook)
    message = await api.receiver.of_type("deployment.ready")
    async for item in api.delivery(message.headers["webhook-id"]):
        if item["attempts"]:
            break
    assert item["state"] == "pending"
    assert item["failures"] == 1
    assert item["attempts"][0]["status"] == 500
    assert item["next_attempt_at"] > item["created_at"]
    assert (item["deployment_id"], item["event_type"]) == (id_, "deployment.ready")
    again = await api.owner.post(f"/v1/deliveries/{item['id']}/resend")
    problem(again, 409, "delivery_pending")
    for where, expected in (({"state": "pending"}, True), ({"state": "delivered"}, False)):
        listed = (await api.owner.get("/v1/deliveries", params=where)).json()["items"]
        assert any(found["id"] == item["id"] for found in listed) is expected


async def test_a_resent_message_is_the_same_message(api: Api) -> None:
    id_ = await api.deploy(user_webhook_url=api.receiver.hook)
    first = await api.receiver.of_type("deployment.ready")
    await api.until(id_, "ready")
    await api.settled(id_)
    sent = await api.owner.post(f"/v1/deliveries/{first.headers['webhook-id']}/resend")
    assert sent.status_code == 202
    assert sent.json()["state"] == "pending"
    await api.receiver.until(lambda got: sum(m.json["type"] == "deployment.ready" for m in got) == 2)
    second = [m for m in api.receiver.messages if m.json["type"] == "deployment.ready"][1]
    assert second.body == first.body
    assert second.headers["webhook-id"] == first.headers["webhook-id"]
    verified((await secret_of(api))["secret"], second)
    actions = (await api.owner.get(f"/v1/deployments/{id_}/events")).json()["items"]
    assert "webhook.resent" in [event["type"] for event in actions]


async def test_a_receiver_that_is_gone_is_told_no_more_until_it_is_asked_for(api: Api) -> None:
    api.receiver.status = 410
    id_ = await api.deploy(user_webhook_url=api.receiver.hook)
    await api.until(id_, "ready")
    settled = await api.settled(id_)
    assert {item["state"] for item in settled} == {"disabled"}
    before = len(api.receiver.messages)  # the first, and what was on its way when it was answered
    assert before >= 1
    await api.owner.delete(f"/v1/deployments/{id_}")
    await api.until(id_, "deleted")
    settled = await api.settled(id_)
    assert {item["state"] for item in settled} == {"disabled"}
    assert len(api.receiver.messages) == before
    api.receiver.status = 204
    last = next(item for item in settled if item["event_type"] == "deployment.deleted")
    assert (await api.owner.post(f"/v1/deliveries/{last['id']}/resend")).status_code == 202
    await api.receiver.of_type("deployment.deleted")
    other = await api.deploy(user_webhook_url=api.receiver.hook)
    await api.receiver.until(
        lambda got: any(m.json["data"]["deployment_id"] == other for m in got), seconds=10
    )


async def test_without_a_webhook_nobody_is_told(api: Api) -> None:
    id_ = await api.deploy()
    await api.until(id_, "ready")
    assert (await api.owner.get("/v1/deliveries")).json() == {"items": [], "next_cursor": None}
    assert api.receiver.messages == []


async def test_deliveries_page_by_cursor(api: Api) -> None:
    for _ in range(2):
        await api.until(await api.deploy(user_webhook_url=api.receiver.hook, hf_model_id=MODEL), "ready")
    everything = (await api.owner.get("/v1/deliveries")).json()["items"]
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        params: dict[str, Any] = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await api.owner.get("/v1/deliveries", params=params)).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [item["id"] for item in found] == [item["id"] for item in everything]


async def test_a_previous_secret_that_has_expired_signs_no_more_and_is_not_shown(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_signature, "PREVIOUS_VALID", timedelta(0))
    old = (await secret_of(api))["secret"]
    new = (await api.owner.post(f"{SECRET}/rotate")).json()["secret"]
    shown = await secret_of(api)
    assert (shown["secret"], shown["previous"], shown["previous_expires_at"]) == (new, None, None)
    await api.deploy(user_webhook_url=api.receiver.hook)
    message = await api.receiver.of_type("deployment.ready")
    verified(new, message)
    with pytest.raises(WebhookVerificationError):
        verified(old, message)
    assert len(message.headers["webhook-signature"].split(" ")) == 1


async def test_deliveries_of_one_deployment_page_by_cursor_and_a_cursor_keeps_its_filter(api: Api) -> None:
    ids = [await api.deploy(user_webhook_url=api.receiver.hook) for _ in range(2)]
    for id_ in ids:
        await api.until(id_, "ready")
    everything = await api.settled(ids[0])
    assert {item["deployment_id"] for item in everything} == {ids[0]}
    found: list[str] = []
    params: dict[str, Any] = {"deployment_id": ids[0], "limit": 1}
    while True:
        page = (await api.owner.get("/v1/deliveries", params=params)).json()
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert found == [item["id"] for item in everything]
    assert len(found) >= 2


@pytest.mark.parametrize("status", [302, 400, 500, 503])
async def test_what_is_refused_is_tried_again_by_itself_as_the_same_message(
    api: Api, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Only 2xx counts: a redirect is a refusal like any other."""
    monkeypatch.setattr(delivery, "SCHEDULE", (0.1,) * 200)
    api.receiver.status = status
    id_ = await api.deploy(user_webhook_url=api.receiver.hook)
    await api.receiver.of_type("deployment.ready")
    api.receiver.status = 204
    settled = await api.settled(id_)
    assert {item["state"] for item in settled} == {"delivered"}
    ready = next(item for item in settled if item["event_type"] == "deployment.ready")
    answers = [attempt["status"] for attempt in ready["attempts"]]
    assert set(answers[:-1]) == {status}, "refused at least once"
    assert answers[-1] == 204
    assert str(status) in ready["attempts"][0]["error"]
    sent = [m for m in api.receiver.messages if m.headers["webhook-id"] == ready["id"]]
    assert len(sent) == len(answers)
    assert len({m.body for m in sent}) == 1
    secret = (await secret_of(api))["secret"]
    assert all(verified(secret, m)["type"] == "deployment.ready" for m in sent)


async def test_after_the_whole_schedule_a_message_is_exhausted_and_its_owner_can_send_it_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "SCHEDULE", (0.02, 0.02))
    api.receiver.status = 500
    id_ = await api.deploy(user_webhook_url=api.receiver.hook)
    await api.until(id_, "ready")
    settled = await api.settled(id_)
    assert {item["state"] for item in settled} == {"exhausted"}
    assert {item["failures"] for item in settled} == {3}
    listed = (await api.owner.get("/v1/deliveries", params={"state": "exhausted"})).json()["items"]
    assert {item["id"] for item in listed} == {item["id"] for item in settled}
    types = [e["type"] for e in (await api.owner.get(f"/v1/deployments/{id_}/events")).json()["items"]]
    assert types.count("webhook.exhausted") == len(settled)
    api.receiver.status = 204
    again = await api.owner.post(f"/v1/deliveries/{settled[0]['id']}/resend")
    assert (again.status_code, again.json()["failures"]) == (202, 0)
    async for item in api.delivery(settled[0]["id"]):
        if item["state"] == "delivered":
            break
