"""The OpenAPI document is whole, and the service does what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any  # an OpenAPI document is untyped JSON

import httpx
import pytest
import pytest_asyncio
from jsonschema_rs import Draft202012Validator

from moorage.api.byoc import PREFIX as BYOC
from moorage.api.clusters import PREFIX as CLUSTERS

from .conftest import MODEL, PASSWORD, VENDOR_TOKEN, Api, problem

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMAS = "#/components/schemas"
PROBLEM = {"$ref": f"{SCHEMAS}/ProblemDocument"}
SIGNED = {"POST /v1/workers/{endpoint}/state", "GET /v1/workers/{endpoint}/cache"}
WITHOUT_CALLER = {"GET /health", "GET /ready", "POST /auth/token", *SIGNED}
NO_BODY_TAKEN = {
    "POST /v1/webhook-secret/rotate",
    "POST /v1/deliveries/{delivery_id}/resend",
    "POST /v2/{deployment}/cancel/{job}",
    "POST /v2/{deployment}/purge-queue",
    *(f"POST /v1/deployments/{{deployment_id}}/{wish}" for wish in ("stop", "start", "wake")),
    *(f"POST {BYOC}/{{uuid}}/{wish}/" for wish in ("stop", "start")),
    f"POST {CLUSTERS}/{{cluster_id}}/check/",
}
Operation = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(shared: Api) -> AsyncIterator[dict[str, Any]]:
    async with shared.client(None) as anybody:
        yield (await anybody.get("/openapi.json")).json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, Operation]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({"components": document["components"], **schema})


def examples(document: dict[str, Any], content: dict[str, Any]) -> list[Any]:
    """Of a media type, or of the schema that it refers to."""
    if "example" in content:
        return [content["example"]]
    schema = content["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return list(schema.get("examples", []))


def successes(operation: Operation) -> dict[str, Any]:
    return {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}


def in_json(holder: Operation) -> Operation | None:
    """What a request body or an answer holds as JSON."""
    content: Operation | None = holder.get("content", {}).get("application/json")
    return content


def body_of(operation: Operation) -> Operation | None:
    return in_json(operation.get("requestBody", {}))


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    found = set(references(document))
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert found <= known
    assert known - found == set(), "nothing lies about unused"


async def test_every_route_says_what_it_is_for(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        assert operation["operationId"], name
        assert len(successes(operation)) == 1, name


async def test_every_route_documents_its_errors_as_problems(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        errors = {s: a for s, a in operation["responses"].items() if not s.startswith("2")}
        ours = BYOC in name  # told in the shapes of its own document
        for status, answer in errors.items():
            schema = {"$ref": f"{SCHEMAS}/{'InvalidDocument' if status == '400' else 'DetailDocument'}"}
            told = {"application/json": {"schema": schema}}
            assert answer["content"] == (told if ours else {"application/problem+json": {"schema": PROBLEM}})
            assert answer["description"], (name, status)
        expected: set[str] = set()
        if name not in WITHOUT_CALLER:
            assert operation["security"] == [{"bearer": []}], name
            expected |= {"401", "403"}
        if "{" in name:
            expected.add("404")
        if body_of(operation) is not None:
            expected |= {"400", "413"}
        if any(p["name"] == "Idempotency-Key" for p in operation.get("parameters", [])):
            expected |= {"409", "413", "400" if ours else "422"}
        assert expected <= set(errors), name


async def test_what_the_gateway_answers_is_documented(document: dict[str, Any]) -> None:
    """Its own refusals, and those of the workers behind it."""
    found = set(document["paths"]["/v1/models/{model}/infer"]["post"]["responses"])
    assert {"200", "400", "401", "403", "404", "408", "413", "422", "500", "502", "503", "504"} == found


async def test_every_json_body_has_examples_that_keep_its_schema(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        bodies = [in_json(answer) for answer in successes(operation).values()]
        if name.startswith("POST") and name not in NO_BODY_TAKEN:
            assert body_of(operation) is not None, name
        bodies.append(body_of(operation))
        for content in bodies:
            if content is None:
                continue
            found = examples(document, content)
            assert found, f"{name} shows no example"
            for example in found:
                validator(document, content["schema"]).validate(example)
    shown = document["components"]["schemas"]["ProblemDocument"]["examples"]
    validator(document, PROBLEM).validate(shown[0])


async def test_parameters_are_described(document: dict[str, Any]) -> None:
    """By words, or by a schema that says it all."""
    for name, operation in operations(document):
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            telling = {"enum", "$ref", "items", "minimum", "maxLength", "anyOf"} & set(schema)
            assert parameter.get("description") or parameter.get("example") or telling, (name, parameter)


@pytest_asyncio.fixture(loop_scope="module")
async def filled(shared: Api) -> dict[str, str]:
    """Real ids for the parameters in paths."""
    id_ = await shared.deploy(user_webhook_url=shared.receiver.hook)
    await shared.until(id_, "ready")
    key = (await shared.owner.post("/v1/keys", json={"name": "doomed"})).json()["id"]
    sent = (await shared.settled(id_))[0]["id"]
    body = {"provider": "vendor", "name": "doomed", "values": {"token": VENDOR_TOKEN}}
    stored = (await shared.owner.post("/v1/credentials", json=body)).json()["id"]
    body = {"name": "doomed", "version": "1", "hf_model_id": MODEL}
    model = (await shared.owner.post("/models", json=body)).json()
    job = (await shared.owner.post(f"/v2/{id_}/run", json={"input": {"inputs": 1}})).json()["id"]
    return {
        "deployment_id": id_,
        "deployment": id_,
        "job": job,
        "model": MODEL,
        "key_id": key,
        "delivery_id": sent,
        "credential_id": stored,
        "model_id": model["uuid"],
    }


async def test_the_examples_are_taken_and_every_answer_keeps_its_schema(
    shared: Api, document: dict[str, Any], filled: dict[str, str]
) -> None:
    """Each operation once, with its own example as the body; deletions last."""
    made = filled["deployment_id"]
    ordered = sorted(operations(document), key=lambda found: found[0].startswith("DELETE"))
    for name, operation in ordered:
        if name in SIGNED:
            continue  # `test_worker_reports` signs them
        if BYOC in name or CLUSTERS in name:
            continue  # `test_byoc` and `test_clusters` have a cluster for them
        method, path = name.split(" ")
        content = body_of(operation)
        body = examples(document, content)[0] if content else None
        if path == "/auth/token":
            body = {"username": "owner", "password": PASSWORD}  # its example is somebody else's
        elif name == "POST /v1/credentials":
            body = {"provider": "vendor", "name": "doc", "values": {"token": VENDOR_TOKEN}}
        elif name == "POST /models":
            body = {"name": "doc", "version": "1", "container_image": f"{shared.registry.host}/doc"}
        if method == "DELETE" and made != filled["deployment_id"]:
            await shared.owner.delete(f"/v1/deployments/{made}")  # it may fall back to any account
            await shared.until(made, "deleted")
        answer = await shared.owner.request(method, path.format(**filled), json=body)
        made = answer.json()["deployment_id"] if name == "POST /v1/deployments" else made
        ((status, expected),) = successes(operation).items()
        assert answer.status_code == int(status), (name, answer.text)
        if "content" in expected:
            assert answer.headers["content-type"].partition(";")[0] == "application/json"
            schema = expected["content"]["application/json"]["schema"]
            validator(document, schema).validate(answer.json())
        else:
            assert answer.content == b""


async def test_a_problem_of_each_layer_keeps_the_documents_schema(
    shared: Api, document: dict[str, Any]
) -> None:
    owner = shared.owner
    found = [
        await owner.post("/v1/deployments", content="{"),
        await owner.post("/v1/deployments", json={"x": 1}),
        await owner.get("/v1/deployments/dep_none"),
        await owner.get("/nowhere"),
        await owner.put("/v1/deployments"),
        await owner.post("/v1/models/nothing/infer", json={}),
    ]
    for answer in found:
        validator(document, PROBLEM).validate(problem(answer, answer.status_code))


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/deployments", "GET, POST"),
        ("OPTIONS", "/v1/deployments", "GET, POST"),
        ("HEAD", "/v1/deployments", "GET, POST"),
        ("GET", "/v1/deployments/plan/events/x", None),
        ("PUT", "/v1/deployments/plan", "POST"),
        ("POST", "/v1/deployments/dep_x", "GET, PATCH, DELETE"),
        ("GET", "/v1/models/moorage/digits/infer", "POST"),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_told_those_it_takes(
    shared: Api, method: str, path: str, allowed: str | None
) -> None:
    answer = await shared.owner.request(method, path)
    if allowed is None:
        problem(answer, 404, "no_such_route")
        return
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    if method != "HEAD":
        problem(answer, 405, "method_not_allowed")


async def test_the_documents_page_is_served(shared: Api) -> None:
    async with httpx.AsyncClient(base_url=shared.url) as anybody:
        page = await anybody.get("/docs")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    assert "/openapi.json" in page.text
