"""Bad input over HTTP: each refusal is a problem document that names field and rule, and stores nothing.

The bodies go through the whole service (server, gateway, framework, domain, Hub client, outgoing guard):
each of these layers refuses something, and a user cannot tell which one did.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any  # JSON of the API

import httpx
import jwt
import pytest

from moorage.adapters.secrets import KeyRing
from moorage.adapters.tokens import JwtTokens
from moorage.api.field_errors import ERRORS_TOLD, LATER
from moorage.domain.identity import Principal, Role
from moorage.testing.hub import Fault
from moorage.testing.provider import cpu_offer

from .conftest import DIGITS, MODEL, Api, problem

DEPLOYMENTS = "/v1/deployments"
JSON = {"content-type": "application/json"}
KEY = {"idempotency-key": "refused-request"}
Body = dict[str, Any]


def faults(found: Body) -> set[tuple[str, str]]:
    assert all(error["message"] for error in found["errors"])
    return {(error["field"], error["rule"]) for error in found["errors"]}


def hub(**more: Any) -> Body:
    return {"hf_model_id": MODEL, **more}


PRIVATE: Body = {
    "cache_scope": "private",
    "user_s3_url": "s3://bucket/models",
    "user_aws_access_key_id": "AKIA0",
    "user_aws_secret_access_key": "secret",
}


def private(**more: Any) -> Body:
    """With a private cache; None leaves a field out."""
    return {name: value for name, value in hub(**{**PRIVATE, **more}).items() if value is not None}


# (what is wrong, the body, the field at fault, the rule it breaks)
BROKEN: list[tuple[str, Body, str, str]] = [
    ("unknown field", hub(min_replica=1), "min_replica", "unknown_field"),
    *((f"later field {name}", hub(**{name: "x"}), name, "not_available_yet") for name in LATER),
    ("version of a version", hub(model_version="2"), "model_version", "in_model_id"),
    ("a field of the BYOC surface", hub(nodegroups=["x"]), "nodegroups", "unknown_field"),
    ("node groups of no cluster", hub(node_groups=["ngp_x"]), "node_groups", "needs_cluster"),
    ("no cluster of that id", hub(cluster="cls_nobody"), "cluster", "known_cluster"),
    ("two sources", hub(container_image="acme/image"), "container_image", "exactly_one_source"),
    ("two sources, the other", hub(container_image="acme/image"), "hf_model_id", "exactly_one_source"),
    ("no source", {}, "hf_model_id", "exactly_one_source"),
    *(
        (f"malformed id {bad!r}", {"hf_model_id": bad}, "hf_model_id", "repo_id")
        for bad in ("a/b/c", "/a", "a/", "a b/c", "a/../b", "-a/b", "a--b/c", "x" * 97 + "/y", "a\n/b", "é/b")
    ),
    *(
        (f"malformed revision {bad!r}", hub(revision=bad), "revision", "revision")
        for bad in ("a..b", "/a", "a b", "a\x00")
    ),
    (
        "revision of an image",
        {"container_image": "a/b", "revision": "main"},
        "revision",
        "needs_hf_model_id",
    ),
    *(
        (f"malformed image {bad!r}", {"container_image": bad}, "container_image", "image_reference")
        for bad in ("UPPER", "a//", "a:", "a@sha256:12", "https://x/y", "a b")
    ),
    *((f"name {bad!r}", hub(name=bad), "name", "name") for bad in ("A", "ab", "1ab", "a_b", "a-", "x" * 64)),
    ("unknown provider", hub(provider="nobody"), "provider", "known_provider"),
    ("min above max", hub(min_replicas=3, max_replicas=2), "min_replicas", "min_at_most_max"),
    *(
        (f"{name} {bad!r}"[:60], hub(**{name: bad}), name, "range")
        for name, values in {
            "min_replicas": (0, -1, 101, 10**30),
            "max_replicas": (0, 101, -(2**63)),
            "context_length": (0, -5, 2**24 + 1, 10**300),
            "concurrency": (0, 10_001),
            "max_price_per_hour": (0.0, -1.0, 1e7, float("nan"), float("inf"), float("-inf")),
            "capacity_deadline_seconds": (0.0, -1.0, 0.9, 1e9, float("nan"), float("inf")),
        }.items()
        for bad in values
    ),
    *(
        (f"{name} as {bad!r}", hub(**{name: bad}), name, rule)
        for name, bad, rule in (
            ("min_replicas", "1", "int_type"),
            ("min_replicas", 1.0, "int_type"),
            ("min_replicas", True, "int_type"),
            ("min_replicas", None, "int_type"),
            ("spot", "yes", "bool_type"),
            ("spot", 1, "bool_type"),
            ("max_price_per_hour", "1.5", "float_type"),
            ("region", ["x"], "string_type"),
            ("hf_token", 5, "string_type"),
            ("env", ["A=1"], "dict_type"),
            ("user_webhook_url", {"url": "x"}, "string_type"),
            ("task", "", "string_too_short"),
            ("task", "x" * 257, "string_too_long"),
            ("user_webhook_url", "https://x/" + "y" * 2048, "string_too_long"),
        )
    ),
    *(
        (f"private cache without {name}", private(**{name: None}), name, "needed_for_private_cache")
        for name in ("user_s3_url", "user_aws_access_key_id", "user_aws_secret_access_key")
    ),
    *(
        (f"bucket URL {bad!r}", private(user_s3_url=bad), "user_s3_url", "s3_url")
        for bad in (
            "https://bucket/x",
            "s3://",
            "s3://B",
            "s3:/bucket",
            "bucket",
            "s3://bucket/a b",
            "gs://bucket",
        )
    ),
    ("bucket endpoint", private(user_aws_endpoint_url="ftp://x"), "user_aws_endpoint_url", "url"),
    (
        "secret with a newline",
        private(user_aws_secret_access_key="a\nb"),
        "user_aws_secret_access_key",
        "visible",
    ),
    ("bucket without a cache", hub(user_s3_url="s3://bucket"), "user_s3_url", "needs_private_cache"),
    ("unknown scope", hub(cache_scope="public"), "cache_scope", "one_of"),
    ("no shared cache here", hub(cache_scope="shared"), "cache_scope", "shared_cache_exists"),
    (
        "cache of an image",
        {"container_image": "a/b", "cache_scope": "shared"},
        "cache_scope",
        "needs_hf_model_id",
    ),
    *(
        (f"{name} {bad}", hub(**{name: bad}), name, "range")
        for name, bad in (
            ("workers_min", -1),
            ("workers_max", 0),
            ("idle_timeout", 0),
            ("idle_timeout", 3601),
            ("execution_timeout", 4.0),
        )
    ),
    ("workers upside down", hub(workers_min=3, workers_max=2), "workers_min", "min_at_most_max"),
    ("endpoint type", hub(endpoint_type="pod"), "endpoint_type", "one_of"),
    ("scaler type", hub(scaler_type="cpu"), "scaler_type", "one_of"),
    ("scaler value alone", hub(scaler_value=4.0), "scaler_value", "needs_scaler_type"),
    ("queue delay", hub(scaler_type="queue_delay", scaler_value=0.1), "scaler_value", "range"),
    ("request count", hub(scaler_type="request_count", scaler_value=1.5), "scaler_value", "range"),
    (
        "a load balancer has no queue",
        hub(endpoint_type="load_balancer", scaler_type="queue_delay", scaler_value=4.0),
        "scaler_type",
        "suits_endpoint_type",
    ),
    ("data center", hub(data_centers=["EU RO"]), "data_centers", "id"),
    ("unknown credential", hub(credential="nothing"), "credential", "known_credential"),
    ("env value that is a number", hub(env={"A": 1}), "env.A", "string_type"),
    *(
        (f"env name {bad!r}"[:40], hub(env={bad: "x"}), f"env.{bad[:64]}", "env_name")
        for bad in ("", "1A", "A B", "A=B", "A-B", "É", "A\x00", "A" * 129)
    ),
    ("env name of ours", hub(env={"moorage_X": "x"}), "env.moorage_X", "env_reserved"),
    ("env with NUL", hub(env={"A": "a\x00b"}), "env.A", "env_value"),
    ("env with half a surrogate", hub(env={"A": "\ud800"}), "env.A", "env_value"),
    ("env too large", hub(env={f"A{i}": "x" * 1000 for i in range(40)}), "env", "env_size"),
    *(
        (f"half a surrogate in {name}", hub(**{name: "a\ud800"}), name, "string_unicode")
        for name in ("name", "revision", "task", "region", "gpu_tier", "provider", "hf_token")
    ),
    ("half a surrogate in the id", {"hf_model_id": "a/\udfff"}, "hf_model_id", "string_unicode"),
    *(
        (f"NUL in {name}", hub(**{name: "a\x00b"}), name, rule)
        for name, rule in (
            ("name", "name"),
            ("task", "printable"),
            ("region", "printable"),
            ("gpu_tier", "printable"),
            ("provider", "printable"),
            ("hf_token", "token"),
            ("user_webhook_url", "url"),
        )
    ),
    ("token with a newline", hub(hf_token="hf_x\r\nX-Evil: 1"), "hf_token", "token"),
    *(
        (f"webhook {url}", hub(user_webhook_url=url), "user_webhook_url", rule)
        for url, rule in (
            ("http://93.184.215.14/hook", "scheme"),
            ("ftp://93.184.215.14/hook", "scheme"),
            ("nonsense", "scheme"),
            ("https://", "host"),
            ("https://user:secret@93.184.215.14/", "userinfo"),
            ("https://93.184.215.14:22/", "port"),
            ("https://10.0.0.1/", "public_address"),
            ("https://192.168.1.1/", "public_address"),
            ("https://172.16.0.1/", "public_address"),
            ("https://169.254.169.254/latest/meta-data", "public_address"),
            ("https://[::1]/", "public_address"),
            ("https://[fd00::1]/", "public_address"),
            ("https://[::ffff:10.0.0.1]/", "public_address"),
            ("https://167772161/", "public_address"),  # 10.0.0.1 as the C library reads numbers
            ("https://0x0a.1/", "public_address"),
            ("https://no-such-host.invalid/", "resolves"),
        )
    ),
]


async def test_a_broken_rule_is_named_and_nothing_is_stored(api: Api, subtests: pytest.Subtests) -> None:
    before = api.rows()
    for what, body, field, rule in BROKEN:
        with subtests.test(what):
            answer = await api.owner.post(DEPLOYMENTS, content=json.dumps(body), headers={**JSON, **KEY})
            found = problem(answer, 422)
            assert (f"body.{field}", rule) in faults(found)
            assert "secret@" not in answer.text
    assert api.rows() == before
    assert not api.compute.endpoints


async def test_a_plan_is_refused_for_the_same_reasons(api: Api, subtests: pytest.Subtests) -> None:
    for what, body, field, rule in BROKEN:
        if what.startswith(("webhook", "NUL in user_webhook_url")):
            continue  # a plan calls nobody back
        with subtests.test(what):
            answer = await api.owner.post(f"{DEPLOYMENTS}/plan", content=json.dumps(body), headers=JSON)
            assert (f"body.{field}", rule) in faults(problem(answer, 422))


async def test_a_misspelt_field_is_answered_with_the_right_one(api: Api) -> None:
    found = problem(await api.owner.post(DEPLOYMENTS, json=hub(min_replica=1)), 422)
    assert "Did you mean min_replicas?" in found["errors"][0]["message"]
    found = problem(await api.owner.post(DEPLOYMENTS, json=hub(zzzzzz=1)), 422)
    assert "Did you mean" not in found["errors"][0]["message"]


async def test_a_body_full_of_errors_costs_little_and_are_told_in_part(api: Api) -> None:
    limit = api.service.settings.max_body_bytes
    body = hub(**{f"min_replica{i}" + "s" * 50: i for i in range(limit // 100)})
    began = time.perf_counter()
    found = problem(await api.owner.post(DEPLOYMENTS, json=body), 422)
    assert len(found["errors"]) == ERRORS_TOLD
    assert time.perf_counter() - began < 3
    long_name = problem(await api.owner.post(DEPLOYMENTS, json=hub(**{"x" * (limit // 2): 1})), 422)
    assert len(json.dumps(long_name)) < 1000


# -- what the Hub says ---------------------------------------------------------------------------------------


async def test_a_model_that_cannot_be_used_is_refused_with_the_hubs_reason(
    api: Api, subtests: pytest.Subtests
) -> None:
    await api.hub.add_repo("acme/gated", DIGITS, gated=True, token="hf_gated")
    await api.hub.add_repo("acme/private", DIGITS, private=True, token="hf_private")
    await api.hub.add_repo("acme/disabled", DIGITS, disabled=True)
    api.hub.accept_token("hf_stranger")
    cases: list[tuple[Body, str, str]] = [
        ({"hf_model_id": "acme/nothing"}, "hf_model_id", "model_not_found"),
        ({"hf_model_id": "acme/gated"}, "hf_model_id", "model_gated"),
        ({"hf_model_id": "acme/gated", "hf_token": "hf_stranger"}, "hf_model_id", "model_gated"),
        ({"hf_model_id": "acme/disabled"}, "hf_model_id", "model_disabled"),
        (hub(revision="no-such-branch"), "revision", "revision_not_found"),
        (hub(hf_token="hf_wrong"), "hf_token", "hf_token_refused"),
    ]
    before = api.rows()
    for body, field, rule in cases:
        with subtests.test(f"{rule} {body}"):
            answer = await api.owner.post(DEPLOYMENTS, json=body, headers=KEY)
            found = problem(answer, 422)
            assert (found["code"], faults(found)) == (rule, {(f"body.{field}", rule)})
            assert "hf_wrong" not in answer.text
            assert found["advice"]
    with subtests.test("private: the Hub does not tell it from missing, so both are said"):
        found = problem(await api.owner.post(DEPLOYMENTS, json={"hf_model_id": "acme/private"}), 422)
        assert found["code"] in ("model_private", "model_not_found")
        assert "private" in found["detail"]
        assert "hf_token" in found["advice"]
    assert api.rows() == before
    for model, token in (("acme/gated", "hf_gated"), ("acme/private", "hf_private")):
        id_ = await api.deploy(hf_model_id=model, hf_token=token)
        await api.until(id_, "ready")


async def test_a_hub_that_is_down_refuses_nothing_and_is_asked_again(api: Api) -> None:
    api.hub.fault = Fault.DOWN
    id_ = await api.deploy()
    waiting = await api.until(id_, "validating")
    assert waiting["error"] is None
    api.hub.fault = Fault.NONE
    await api.until(id_, "ready", seconds=30)


async def test_a_model_that_fits_nowhere_is_told_the_smallest_change(api: Api) -> None:
    before = api.rows()
    api.compute.offers[:] = [cpu_offer("tiny", provider="fake", memory_gb=0.1)]
    found = problem(await api.owner.post(DEPLOYMENTS, json=hub(), headers=KEY), 422)
    assert found["code"] == "does_not_fit"
    assert faults(found) == {("body.hf_model_id", "fits_somewhere")}
    assert "this offers 0.1 GiB" in found["detail"]
    assert "GiB" in found["advice"]
    api.compute.offers[:] = [cpu_offer("dear", provider="fake", memory_gb=8, price=2.0)]
    found = problem(await api.owner.post(DEPLOYMENTS, json=hub(max_price_per_hour=1.5)), 422)
    assert "max_price_per_hour" in found["advice"]
    assert "2" in found["advice"]
    assert api.rows() == before
    assert (await api.owner.post(DEPLOYMENTS, json=hub(max_price_per_hour=2.0))).status_code == 202


# -- bodies that are no body ---------------------------------------------------------------------------------


async def _chunks(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 65536):
        yield b" " * 65536


async def test_an_oversized_body_is_refused_whether_it_says_so_or_not(
    api: Api, subtests: pytest.Subtests
) -> None:
    before = api.rows()
    limit = api.service.settings.max_body_bytes
    for path in (DEPLOYMENTS, f"{DEPLOYMENTS}/plan", "/v1/keys", "/auth/token", "/v1/webhook-secret/rotate"):
        with subtests.test(f"declared {path}"):
            found = problem(await api.owner.post(path, content=b" " * (limit + 1), headers=JSON), 413)
            assert faults(found) == {("body", "max_bytes")}
        with subtests.test(f"in chunks, without a length {path}"):
            found = problem(await api.owner.post(path, content=_chunks(2 * limit), headers=JSON), 413)
            assert faults(found) == {("body", "max_bytes")}
    assert api.rows() == before
    padded = json.dumps(hub()).ljust(limit)
    assert (await api.owner.post(DEPLOYMENTS, content=padded, headers=JSON)).status_code == 202


UNREADABLE = {
    "cut off": b'{"hf_model_id": ',
    "a word": b"deploy",
    "single quotes": b"{'hf_model_id': 'a/b'}",
    "not UTF-8": b'{"hf_model_id": "\xff"}',
    "nested too deep": b"[" * 60_000,
    "an endless number": b'{"min_replicas": ' + b"9" * 5000 + b"}",
    "two values": b"{} {}",
}


async def test_a_body_that_is_no_json_is_malformed(api: Api, subtests: pytest.Subtests) -> None:
    before = api.rows()
    for what, raw in UNREADABLE.items():
        for path in (DEPLOYMENTS, f"{DEPLOYMENTS}/plan", "/v1/keys", "/auth/token"):
            with subtests.test(f"{what} {path}"):
                answer = await api.owner.post(path, content=raw, headers={**JSON, **KEY})
                found = problem(answer, 400)
                assert (found["code"], faults(found)) == ("invalid_json", {("body", "json")})
    for what, raw, rule in (
        ("empty", b"", "missing"),
        ("a list", b"[1]", "model_attributes_type"),
        ("a number", b"1", "model_attributes_type"),
    ):
        with subtests.test(what):
            found = problem(await api.owner.post(DEPLOYMENTS, content=raw, headers=JSON), 422)
            assert faults(found) == {("body", rule)}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
        with subtests.test(kind):
            headers = {"content-type": kind}
            answer = await api.owner.post(DEPLOYMENTS, content=json.dumps(hub()), headers=headers)
            found = problem(answer, 415)
            assert faults(found) == {("header.Content-Type", "media_type")}
    with subtests.test("a field name that has no UTF-8"):
        problem(await api.owner.post(DEPLOYMENTS, content=b'{"\\ud800": 1}', headers=JSON), 422)
        problem(await api.owner.post(DEPLOYMENTS, content=b'{"env": {"\\ud800": ""}}', headers=JSON), 422)
    assert api.rows() == before


# -- who asks ------------------------------------------------------------------------------------------------


async def test_a_credential_that_is_not_ours_is_refused_with_its_reason(
    api: Api, subtests: pytest.Subtests
) -> None:
    owner = await api.service.store.user_named("owner")
    assert owner is not None
    principal = Principal(owner.id, owner.organization_id, Role.OWNER)
    now = datetime.now(UTC)
    real = api.owner.headers["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(real, options={"verify_signature": False})
    ring = (api.service.settings.data_dir / "secret_keys").read_text()
    foreign, _ = JwtTokens([b"k" * 32]).issue(principal, now)
    head, payload, signature = real.split(".")
    made = await api.owner.post("/v1/keys", json={"name": "revoked", "role": "viewer"})
    key = made.json()["key"]
    by_key = {"authorization": f"Bearer {key}"}
    assert (await api.owner.get(DEPLOYMENTS, headers=by_key)).status_code == 200, "so it is remembered"
    assert (await api.owner.delete(f"/v1/keys/{made.json()['id']}")).status_code == 200
    cases: list[tuple[str, bytes | None, str]] = [
        ("none", None, "missing_credentials"),
        ("empty", b"", "missing_credentials"),
        ("basic", b"Basic b3duZXI6eA==", "wrong_scheme"),
        ("no token", b"Bearer", "wrong_scheme"),
        ("garbage", b"Bearer x.y.z", "token_invalid"),
        ("bytes", b"Bearer \xff\xfe", "token_invalid"),
        ("long", b"Bearer " + b"x" * 9000, "token_invalid"),
        ("foreign signature", f"Bearer {foreign}".encode(), "token_invalid"),
        ("alg none", f"Bearer {jwt.encode(claims, '', algorithm='none')}".encode(), "token_invalid"),
        ("no signature", f"Bearer {head}.{payload}.".encode(), "token_invalid"),
        ("changed claims", f"Bearer {head}.{payload[:-2]}AA.{signature}".encode(), "token_invalid"),
        ("unknown key", b"Bearer mrg_" + b"x" * 43, "key_unknown"),
        ("revoked key", f"Bearer {key}".encode(), "key_revoked"),
    ]
    before = api.rows()
    async with httpx.AsyncClient(base_url=api.url) as anybody:
        for what, header, code in cases:
            headers = {} if header is None else {b"authorization": header}
            for path in (DEPLOYMENTS, f"/v1/models/{MODEL}/infer"):
                with subtests.test(f"{what} {path}"):
                    answer = await anybody.post(path, json=hub(), headers=headers)
                    assert problem(answer, 401)["code"] == code
                    assert answer.headers["www-authenticate"].startswith("Bearer")
                    assert ring.strip() not in answer.text
    assert api.rows() == before


async def test_an_expired_token_is_told_from_a_wrong_one(api: Api) -> None:
    """Signed with the service's own key, read from its data directory, a day ago."""
    owner = await api.service.store.user_named("owner")
    assert owner is not None
    principal = Principal(owner.id, owner.organization_id, Role.OWNER)
    ring = KeyRing.load_or_create(api.service.settings.data_dir / "secret_keys")
    tokens = JwtTokens(ring.derive("jwt"), timedelta(hours=1))
    fresh, _ = tokens.issue(principal, datetime.now(UTC))
    old, _ = tokens.issue(principal, datetime.now(UTC) - timedelta(days=1))
    valid = await api.owner.get(DEPLOYMENTS, headers={"authorization": f"Bearer {fresh}"})
    assert valid.status_code == 200, "else the old one proves nothing"
    answer = await api.owner.post(DEPLOYMENTS, json=hub(), headers={"authorization": f"Bearer {old}"})
    assert problem(answer, 401)["code"] == "token_expired"
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


# -- paths and queries ---------------------------------------------------------------------------------------


async def test_a_bad_query_names_its_parameter(api: Api, subtests: pytest.Subtests) -> None:
    huge = "9" * 5000
    cases = [
        (DEPLOYMENTS, "cursor", ("zzz", "\x00", "é", ".", "x" * 513)),
        (DEPLOYMENTS, "limit", ("0", "-1", "201", "x", "1.5", "1e3", huge, "")),
        (DEPLOYMENTS, "status", ("nope", "READY", "\x00")),
        ("/v1/deliveries", "cursor", ("zzz", "\x00")),
        ("/v1/deliveries", "limit", ("0", "101", huge)),
        ("/v1/deliveries", "state", ("nope", "")),
        (f"{DEPLOYMENTS}/dep_x/events", "limit", ("0", "1001")),
        (f"{DEPLOYMENTS}/dep_x/logs", "tail", ("-1", "5001", "all")),
    ]
    for path, name, values in cases:
        for value in values:
            with subtests.test(f"{path} {name}={value!r}"[:60]):
                found = problem(await api.owner.get(path, params={name: value}), 422)
                field = found["errors"][0]["field"]
                assert field == f"query.{name}" or field.startswith(f"query.{name}.")


async def test_a_path_that_leads_nowhere_is_a_problem_too(api: Api, subtests: pytest.Subtests) -> None:
    strange = ("%00", "%ff", "%ED%A0%80", "é", "x" * 5000, "'; DROP TABLE deployments; --", "%25", "..%5c")
    for id_ in strange:
        for path in (f"{DEPLOYMENTS}/{id_}", f"{DEPLOYMENTS}/{id_}/events", f"{DEPLOYMENTS}/{id_}/logs"):
            with subtests.test(path[:60]):
                assert problem(await api.owner.get(path), 404)["code"] == "deployment_not_found"
        for method, path in (
            ("DELETE", f"{DEPLOYMENTS}/{id_}"),
            ("DELETE", f"/v1/keys/{id_}"),
            ("POST", f"/v1/deliveries/{id_}/resend"),
            ("POST", f"/v1/models/{id_}/infer"),
        ):
            with subtests.test(f"{method} {path}"[:60]):
                problem(await api.owner.request(method, path), 404)
    for path in ("/nothing", "/v1", "/v2/deployments", f"{DEPLOYMENTS}/a/b/c", "/v1/../../etc/passwd"):
        with subtests.test(path):
            assert problem(await api.owner.get(path), 404)["code"] == "no_such_route"
    for method, path in (("PUT", DEPLOYMENTS), ("PUT", f"{DEPLOYMENTS}/x"), ("DELETE", DEPLOYMENTS)):
        with subtests.test(f"{method} {path}"):
            answer = await api.owner.request(method, path)
            assert problem(answer, 405)["code"] == "method_not_allowed"
            assert "GET" in answer.headers["allow"]
