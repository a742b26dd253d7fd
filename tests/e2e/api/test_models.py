"""Models over HTTP: containers that are imported, and custom models, up to their deployment and removal."""

from __future__ import annotations

from typing import Any  # JSON of the API
from uuid import UUID, uuid4

import httpx
import pytest

from moorage.domain.model import ContainerImage, HubModel
from moorage.domain.naming import id_of
from moorage.ports.outside import RegistryAccess
from moorage.testing.hub import Fault

from .conftest import DIGITS, MODEL, Api, at_fault, problem

PATH = "/models"
DIGEST = "sha256:" + "ab" * 32
SECRET = "correct horse battery staple"


def image(api: Api, rest: str = "acme/serve:1", **more: Any) -> dict[str, Any]:
    return {"name": "acme-serve", "version": "1", "container_image": f"{api.registry.host}/{rest}", **more}


CUSTOM = {"name": "our-digits", "version": "1", "hf_model_id": MODEL}


async def made(api: Api, body: dict[str, Any]) -> dict[str, Any]:
    answer = await api.owner.post(PATH, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{PATH}/{found['uuid']}"
    return found


async def organization(api: Api) -> str:
    owner = await api.service.store.user_named("owner")
    assert owner is not None
    return owner.organization_id


# -- importing -------------------------------------------------------------------------------------------


async def test_a_container_that_its_registry_has_is_imported_with_its_digest(api: Api) -> None:
    api.registry.images["acme/serve:1"] = DIGEST
    found = await made(api, image(api))
    assert UUID(found["uuid"])
    assert found.pop("created_at").endswith("Z")
    assert found.pop("created_by").startswith("usr_")
    assert found.pop("id") == found["uuid"]
    assert found == {
        "uuid": found["uuid"],
        "name": "acme-serve",
        "version": "1",
        "status": "SUCCESS",
        "type": "imported_container",
        "container_image": f"{api.registry.host}/acme/serve:1",
        "hf_model_id": None,
        "revision": None,
        "digest": DIGEST,
        "detail": None,
    }


async def test_a_container_that_its_registry_has_not_is_kept_as_failed_with_the_cause(api: Api) -> None:
    found = await made(api, image(api))
    assert (found["status"], found["digest"]) == ("FAILED", None)
    assert "has no image acme/serve:1 (404 MANIFEST_UNKNOWN)" in found["detail"]
    assert (await api.owner.get(f"{PATH}/{found['uuid']}")).json() == found


async def test_a_private_image_needs_credentials_which_are_never_shown(api: Api) -> None:
    api.registry.images["acme/serve:1"] = DIGEST
    api.registry.login = f"bot:{SECRET}"
    without = await made(api, image(api, name="without"))
    assert without["status"] == "FAILED"
    assert "needs registry_username and registry_password" in without["detail"]
    wrong = image(api, name="wrong", registry_username="bot", registry_password=f"{SECRET}?")
    answer = await api.owner.post(PATH, json=wrong)
    assert answer.json()["status"] == "FAILED"
    assert "refuses these credentials" in answer.json()["detail"]
    assert SECRET not in answer.text
    right = image(api, name="right", registry_username="bot", registry_password=SECRET)
    answer = await api.owner.post(PATH, json=right)
    assert (answer.json()["status"], answer.json()["digest"]) == ("SUCCESS", DIGEST)
    assert SECRET not in answer.text
    assert SECRET not in (await api.owner.get(PATH)).text
    database = api.service.settings.data_dir
    assert not [
        file for file in database.iterdir() if file.is_file() and SECRET.encode() in file.read_bytes()
    ]


@pytest.mark.parametrize("host", ["127.0.0.1:9", "10.1.2.3", "registry.example"])
async def test_a_registry_that_may_not_or_cannot_be_asked_stands_in_nobody_s_way(api: Api, host: str) -> None:
    found = await made(api, {"name": "inside", "version": "1", "container_image": f"{host}/acme/serve:1"})
    assert (found["status"], found["digest"]) == ("SUCCESS", None)
    assert found["detail"].startswith("It could not be verified: ")


async def test_a_registry_that_fails_verifies_nothing(api: Api) -> None:
    api.registry.broken = True
    found = await made(api, image(api))
    assert found["status"] == "SUCCESS"
    assert "answered 500" in found["detail"]


async def test_a_custom_model_is_tied_to_its_commit(api: Api) -> None:
    found = await made(api, CUSTOM)
    assert (found["status"], found["type"], found["container_image"]) == ("SUCCESS", "custom_model", None)
    assert found["hf_model_id"] == MODEL
    assert len(found["revision"]) == 40
    gone = await made(api, {"name": "gone", "version": "1", "hf_model_id": "acme/gone"})
    assert gone["status"] == "FAILED"
    assert "acme/gone" in gone["detail"]


async def test_a_hub_that_does_not_answer_verifies_nothing(api: Api) -> None:
    await api.hub.add_repo("acme/unheard", DIGITS)
    api.hub.fault = Fault.ERROR
    found = await made(api, {"name": "unheard", "version": "1", "hf_model_id": "acme/unheard"})
    assert (found["status"], found["revision"]) == ("SUCCESS", None)
    assert "could not be verified" in found["detail"]


# -- what is refused --------------------------------------------------------------------------------------

BROKEN: tuple[tuple[str, dict[str, Any], str, str], ...] = (
    ("no name", {"version": "1", "container_image": "a/b"}, "name", "missing"),
    ("no version", {"name": "a", "container_image": "a/b"}, "version", "missing"),
    ("a name that is none", {"name": "a b", "version": "1", "container_image": "a/b"}, "name", "name"),
    ("an empty name", {"name": "", "version": "1", "container_image": "a/b"}, "name", "name"),
    (
        "a version that is none",
        {"name": "a", "version": "1/2", "container_image": "a/b"},
        "version",
        "version",
    ),
    ("no source", {"name": "a", "version": "1"}, "container_image", "exactly_one_source"),
    ("two sources", {**CUSTOM, "container_image": "a/b"}, "hf_model_id", "exactly_one_source"),
    (
        "no reference",
        {"name": "a", "version": "1", "container_image": "A"},
        "container_image",
        "image_reference",
    ),
    (
        "a URL",
        {"name": "a", "version": "1", "container_image": "https://a.b/c"},
        "container_image",
        "image_reference",
    ),
    ("no repo id", {**CUSTOM, "hf_model_id": "a--b"}, "hf_model_id", "repo_id"),
    ("no revision", {**CUSTOM, "revision": ".."}, "revision", "revision"),
    ("no token", {**CUSTOM, "hf_token": "a b"}, "hf_token", "token"),
    (
        "a revision of an image",
        {"name": "a", "version": "1", "container_image": "a/b", "revision": "main"},
        "revision",
        "needs_hf_model_id",
    ),
    (
        "a Hub's token for an image",
        {"name": "a", "version": "1", "container_image": "a/b", "hf_token": "hf_x"},
        "hf_token",
        "needs_hf_model_id",
    ),
    (
        "a login for a Hub's model",
        {**CUSTOM, "registry_username": "a"},
        "registry_username",
        "needs_container_image",
    ),
    (
        "half a login",
        {"name": "a", "version": "1", "container_image": "a/b", "registry_username": "u"},
        "registry_password",
        "both_or_neither",
    ),
    (
        "the other half",
        {"name": "a", "version": "1", "container_image": "a/b", "registry_password": SECRET},
        "registry_username",
        "both_or_neither",
    ),
    (
        "a user name that cannot be sent",
        {
            "name": "a",
            "version": "1",
            "container_image": "a/b",
            "registry_username": "a:b",
            "registry_password": SECRET,
        },
        "registry_username",
        "username",
    ),
    (
        "an empty password",
        {
            "name": "a",
            "version": "1",
            "container_image": "a/b",
            "registry_username": "a",
            "registry_password": "",
        },
        "registry_password",
        "password",
    ),
    ("an unknown field", {**CUSTOM, "container": "a"}, "container", "unknown_field"),
    ("a number", {**CUSTOM, "version": 1}, "version", "string_type"),
)


async def test_each_rule_broken_once_is_named_and_nothing_is_stored(
    api: Api, subtests: pytest.Subtests
) -> None:
    before = api.rows()
    for case, body, field, rule in BROKEN:
        with subtests.test(case):
            found = at_fault(await api.owner.post(PATH, json=body), 422, f"body.{field}", rule)
            assert SECRET not in str(found)
    assert api.rows() == before


async def test_a_file_is_no_json(api: Api) -> None:
    answer = await api.owner.post(PATH, data={"name": "a"}, files={"file": b"x"})
    problem(answer, 415, "unsupported_media_type")


async def test_a_name_and_version_is_registered_once(api: Api) -> None:
    first = await made(api, CUSTOM)
    found = at_fault(await api.owner.post(PATH, json=CUSTOM), 409, "body.version", "unique_in_organization")
    assert found["code"] == "version_taken"
    await made(api, {**CUSTOM, "version": "2"})
    stranger = {"authorization": await api.stranger()}
    assert (await api.owner.post(PATH, json=CUSTOM, headers=stranger)).status_code == 201
    await api.owner.delete(f"{PATH}/{first['uuid']}")
    await made(api, CUSTOM)


async def test_a_request_that_is_sent_again_registers_nothing_again(api: Api) -> None:
    headers = {"idempotency-key": "once"}
    answers = [await api.owner.post(PATH, json=CUSTOM, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true"]
    assert api.rows()["model_versions"] == 1
    reused = await api.owner.post(PATH, json={**CUSTOM, "version": "2"}, headers=headers)
    problem(reused, 409, "idempotency_key_reused")


# -- reading and removing -----------------------------------------------------------------------------------


async def test_models_are_listed_newest_first_page_by_page(api: Api) -> None:
    ids = [(await made(api, {**CUSTOM, "version": str(n)}))["uuid"] for n in range(5)]
    seen: list[str] = []
    url: str | None = f"{PATH}?limit=2"
    while url is not None:
        answer = await api.owner.get(url)
        assert len(answer.json()) <= 2
        seen += [row["uuid"] for row in answer.json()]
        url = answer.links.get("next", {}).get("url")
    assert seen == ids[::-1]
    at_fault(await api.owner.get(PATH, params={"cursor": "x"}), 422, "query.cursor", "cursor")


async def test_the_slash_at_the_end_is_free(api: Api) -> None:
    answer = await api.owner.post(f"{PATH}/", json=CUSTOM)
    assert answer.status_code == 201
    uuid = answer.json()["uuid"]
    for path in (PATH, f"{PATH}/{uuid}"):
        assert (await api.owner.get(f"{path}/")).json() == (await api.owner.get(path)).json()
    assert (await api.owner.delete(f"{PATH}/{uuid}/")).status_code == 200


async def test_another_organization_s_model_is_not_there(api: Api) -> None:
    found = await made(api, CUSTOM)
    path = f"{PATH}/{found['uuid']}"
    async with api.client(await api.stranger()) as stranger:
        problem(await stranger.get(path), 404, "model_not_found")
        problem(await stranger.delete(path), 404, "model_not_found")
        assert (await stranger.get(PATH)).json() == []
    assert (await api.owner.get(path)).json() == found
    for nobody in (str(uuid4()), "mdl_nothing", "%00"):
        problem(await api.owner.get(f"{PATH}/{nobody}"), 404)


async def test_a_removed_model_is_gone_and_its_credentials_with_it(api: Api) -> None:
    api.registry.images["acme/serve:1"] = DIGEST
    found = await made(api, image(api, registry_username="u", registry_password=SECRET))
    path = f"{PATH}/{found['uuid']}"
    for _ in range(2):
        answer = await api.owner.delete(path)
        assert answer.status_code == 200
        assert answer.json() == {"message": f"Model {found['uuid']} deleted successfully"}
    problem(await api.owner.get(path), 404, "model_not_found")
    assert (await api.owner.get(PATH)).json() == []
    row = await api.service.store.model_version(id_of("mdl", UUID(found["uuid"])), await organization(api))
    assert row is not None
    assert row.sealed is None


# -- deploying -------------------------------------------------------------------------------------------


async def test_a_model_that_is_deployed_stays_until_its_deployment_is_gone(api: Api) -> None:
    found = await made(api, CUSTOM)
    answer = await api.owner.post("/v1/deployments", json={"model_id": found["uuid"]})
    assert answer.status_code == 202, answer.text
    deployment_id = answer.json()["deployment_id"]
    ready = await api.until(deployment_id, "ready")
    assert ready["hf_model_id"] == MODEL
    path = f"{PATH}/{found['uuid']}"
    assert deployment_id in problem(await api.owner.delete(path), 409, "model_in_use")["detail"]
    await api.owner.delete(f"/v1/deployments/{deployment_id}")
    await api.until(deployment_id, "deleted")
    assert (await api.owner.delete(path)).status_code == 200


async def refused(api: Api, model_id: str, code: str) -> httpx.Response:
    answer = await api.owner.post("/v1/deployments", json={"model_id": model_id})
    found = at_fault(answer, 422, "body.model_id", code)
    assert found["code"] == code
    return answer


async def test_what_cannot_be_deployed_is_refused_with_its_cause(api: Api) -> None:
    failed = await made(api, image(api))
    answer = await refused(api, failed["uuid"], "model_not_ready")
    assert "SUCCESS" in answer.json()["detail"]
    assert "has no image" in answer.json()["detail"]
    await refused(api, str(uuid4()), "model_not_found")
    await api.owner.delete(f"{PATH}/{failed['uuid']}")
    await refused(api, failed["uuid"], "model_not_found")


async def test_a_deployment_gets_the_image_by_digest_and_what_opens_its_registry(api: Api) -> None:
    api.registry.images["acme/serve:1"] = DIGEST
    found = await made(api, image(api, registry_username="bot", registry_password=SECRET))
    answer = await api.owner.post("/v1/deployments", json={"model_id": found["uuid"]})
    assert answer.status_code == 202, answer.text
    await api.until(answer.json()["deployment_id"], "ready")
    (endpoint,) = api.compute.endpoints.values()
    assert endpoint.plan.source == ContainerImage(f"{api.registry.host}/acme/serve:1@{DIGEST}")
    assert endpoint.plan.registry == RegistryAccess(api.registry.host, "bot", SECRET)


async def test_a_deployment_gets_the_commit_and_what_opens_the_model(api: Api) -> None:
    api.hub.accept_token("hf_secret")
    found = await made(api, {**CUSTOM, "hf_token": "hf_secret"})
    answer = await api.owner.post("/v1/deployments", json={"model_id": found["uuid"]})
    assert answer.status_code == 202, answer.text
    await api.until(answer.json()["deployment_id"], "ready")
    (endpoint,) = api.compute.endpoints.values()
    assert endpoint.plan.source == HubModel(MODEL, found["revision"])
    assert endpoint.plan.hub_token == "hf_secret"
