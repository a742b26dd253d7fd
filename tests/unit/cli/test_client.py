"""The client against a server that misbehaves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from moorage.cli import client as client_module
from moorage.cli.client import MoorageClient
from moorage.cli.failures import ApiProblem, CliError, ExitCode, NoSuchDeployment, Unreachable

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Answer, Service

ID = "dep_27k4m6q2x5y3zj7abcdefghijk"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RECONNECT_EVERY_SECONDS", 0.01)


def stream(*events: tuple[str, str]) -> bytes:
    frames = [f"event: {t}\nid: {i}\ndata: {json.dumps({'id': i, 'type': t})}\n\n" for i, t in events]
    return "".join(frames).encode()


def deployment(name: str, status: str = "ready", id_: str = ID) -> dict[str, Any]:
    return {"deployment_id": id_, "name": name, "status": status}


def page(*items: dict[str, Any], cursor: str | None = None) -> dict[str, Any]:
    return {"items": list(items), "next_cursor": cursor}


def test_a_create_whose_answer_is_lost_is_sent_again_under_the_same_key(
    service: Service, answer: type[Answer]
) -> None:
    accepted = {"deployment_id": ID, "name": "a", "status": "validating"}
    service.in_turn(answer(0, cut=True), answer(202, accepted))
    with MoorageClient(service.url, "mrg_k") as client:
        assert client.create({"hf_model_id": "a/b"}) == accepted
    first, second = service.asked
    assert first.body == second.body == {"hf_model_id": "a/b"}
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert second.headers["authorization"] == "Bearer mrg_k"


def test_a_plan_whose_answer_is_lost_is_not_sent_again(service: Service, answer: type[Answer]) -> None:
    service.answers = lambda _: answer(0, cut=True)
    with MoorageClient(service.url, None) as client, pytest.raises(Unreachable) as raised:
        client.plan({})
    assert len(service.asked) == 1
    assert raised.value.exit_code is ExitCode.UNREACHABLE


def test_following_goes_on_after_a_cut_where_it_was(service: Service, answer: type[Answer]) -> None:
    media = "text/event-stream"
    cut_off = stream(("e2", "deployment.ready")) + b'event: deployment.deleted\ndata: {"ty'
    service.in_turn(
        answer(200, stream(("e1", "deployment.validating")), media, cut=True),
        answer(0, cut=True),
        answer(200, cut_off, media, cut=True),
        answer(200, stream(("e3", "deployment.deleted")), media, cut=True),
    )
    with MoorageClient(service.url, None) as client:
        told = [event["id"] for event in client.follow_events(ID)]
    assert told == ["e1", "e2", "e3"]
    after = [parse_qs(urlsplit(a.path).query).get("after") for a in service.asked]
    assert after == [None, ["e1"], ["e1"], ["e2"]]


def test_following_gives_up_on_a_service_that_does_not_come_back(
    service: Service, answer: type[Answer]
) -> None:
    service.answers = lambda _: answer(0, cut=True)
    with (
        MoorageClient(service.url, None, reconnect_for=0.1) as client,
        pytest.raises(Unreachable, match="Nothing answers"),
    ):
        list(client.follow_events(ID))
    assert len(service.asked) > 2


def test_following_does_not_retry_a_refusal(service: Service, answer: type[Answer]) -> None:
    service.answers = lambda _: answer(404, {"title": "Not found", "detail": "gone", "code": "x"})
    with MoorageClient(service.url, None) as client, pytest.raises(ApiProblem) as raised:
        list(client.follow_events(ID))
    assert raised.value.exit_code is ExitCode.NOT_FOUND
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, ExitCode.AUTH),
        (403, ExitCode.AUTH),
        (404, ExitCode.NOT_FOUND),
        (422, ExitCode.FAILED),
        (500, ExitCode.FAILED),
    ],
)
def test_a_problem_document_has_an_exit_code(
    service: Service, answer: type[Answer], status: int, code: ExitCode
) -> None:
    service.answers = lambda _: answer(status, {"title": "T", "detail": "D", "code": "c", "status": status})
    with MoorageClient(service.url, None) as client, pytest.raises(ApiProblem) as raised:
        client.deployment(ID)
    assert raised.value.exit_code is code
    assert raised.value.document["code"] == "c"


@pytest.mark.parametrize("status", [200, 404, 502])
def test_what_is_not_of_this_api_is_said_so(service: Service, answer: type[Answer], status: int) -> None:
    service.answers = lambda _: answer(status, b"<html>", "text/html")
    with MoorageClient(service.url, None) as client, pytest.raises(CliError) as raised:
        client.deployment(ID)
    assert raised.value.document["code"] == "not_moorage"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://a..b:80", "http://127.0.0.1:99999"])
def test_an_address_where_nothing_is_names_itself(url: str) -> None:
    with pytest.raises(Unreachable, match=url), MoorageClient(url, None) as client:
        client.keys()


def test_lists_are_read_over_their_pages_up_to_the_limit(service: Service, answer: type[Answer]) -> None:
    service.in_turn(
        answer(200, page(deployment("a"), deployment("b"), cursor="next")),
        answer(200, page(deployment("c"), deployment("d"), cursor="more")),
    )
    with MoorageClient(service.url, None) as client:
        found = client.deployments(status=["ready", "failed"], limit=3)
    assert [d["name"] for d in found] == ["a", "b", "c"]
    assert "status=ready&status=failed" in service.asked[0].path
    assert "cursor=next" in service.asked[1].path


def test_a_name_means_the_one_that_is_there(service: Service, answer: type[Answer]) -> None:
    service.in_turn(answer(200, page(deployment("a", "deleted", "dep_1"), deployment("a", "ready", "dep_2"))))
    with MoorageClient(service.url, None) as client:
        assert client.find("a")["deployment_id"] == "dep_2"


def test_a_name_of_deleted_ones_means_the_newest(service: Service, answer: type[Answer]) -> None:
    service.in_turn(
        answer(200, page(deployment("a", "deleted", "dep_2"), deployment("a", "deleted", "dep_1")))
    )
    with MoorageClient(service.url, None) as client:
        assert client.find("a")["deployment_id"] == "dep_2"


def test_a_model_that_two_serve_is_not_guessed_at(service: Service, answer: type[Answer]) -> None:
    service.in_turn(answer(200, page(deployment("a", id_="dep_1"), deployment("b", id_="dep_2"))))
    with MoorageClient(service.url, None) as client, pytest.raises(NoSuchDeployment) as raised:
        client.find("acme/model")
    assert "dep_1, dep_2" in raised.value.document["advice"]
    assert raised.value.exit_code is ExitCode.NOT_FOUND


def test_ids_cannot_leave_their_place_in_the_path(service: Service, answer: type[Answer]) -> None:
    service.answers = lambda _: answer(404, {"detail": "none", "code": "x"})
    with MoorageClient(service.url, None) as client, pytest.raises(ApiProblem):
        client.deployment("dep_/../../keys?x")
    assert service.asked[0].path == "/v1/deployments/dep_%2F..%2F..%2Fkeys%3Fx"
