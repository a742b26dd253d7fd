"""What is sent to RunPod: valid by its own document, with what was asked for and nothing more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moorage.domain.compute import EndpointType, ScalerType, Serverless
from moorage.domain.model import CacheScope, ContainerImage, UploadedModel
from moorage.errors import Rejected
from moorage.ports.provider import Callback, RevisionPlan, WorkerCache
from moorage_runpod.bodies import Wanted, create_body, drift, patch_body, wanted
from moorage_runpod.settings import RunPodSettings
from moorage_runpod.testing.document import document
from moorage_runpod.wire import Endpoint

from .plans import INSTALLATION, plan, settings

NAME = "mrg-22222222222222222222222222-r1-a1"
LB = Serverless(endpoint_type=EndpointType.LOAD_BALANCER)


def body_of(asked: RevisionPlan, allowed: int | None = None, **environ: str) -> dict[str, object]:
    return create_body(wanted(asked, NAME, settings(**environ)), allowed)


def errors_of(method: str, path: str, body: object) -> list[str]:
    operation = document().operation(method, path)
    assert operation is not None
    return document().body_errors(operation, body)


def made(body: dict[str, object]) -> Endpoint:
    """The endpoint that RunPod makes of a body."""
    told = {**body, "id": "e1", "createdAt": datetime(2026, 11, 21, tzinfo=UTC).isoformat()}
    told.setdefault("dataCenterIds", [])
    told.setdefault("networkVolumes", [])
    return Endpoint.model_validate(told)


wishes = st.builds(
    Serverless,
    endpoint_type=st.sampled_from([None, *EndpointType]),
    workers_min=st.none() | st.integers(0, 5),
    workers_max=st.none() | st.integers(0, 8),
    idle_timeout=st.none() | st.integers(0, 4000),
    execution_timeout=st.none() | st.floats(0.1, 10**6),
    flashboot=st.none() | st.booleans(),
    network_volumes=st.lists(st.sampled_from(["v1", "v2"]), max_size=2).map(tuple),
    data_centers=st.lists(st.sampled_from(["EU-RO-1", "US-KS-2"]), max_size=2).map(tuple),
    scaler_type=st.sampled_from([None, *ScalerType]),
    scaler_value=st.none() | st.floats(0, 100),
)


@given(wish=wishes, replicas=st.integers(1, 4), template=st.booleans(), allowed=st.none() | st.integers(1, 9))
def test_every_body_is_valid_or_refused_by_name(
    wish: Serverless, replicas: int, template: bool, allowed: int | None
) -> None:
    environ = {"TEMPLATE_ID": "t1", "REGISTRY": "r1", "MIN_CUDA": "12.8"} if template else {}
    asked = plan(replicas=replicas, serverless=wish, SHAPE="round")
    goal = wanted_or_refused(asked, **environ)
    if goal is None:
        return
    assume(allowed is None or goal.least_workers <= allowed < goal.scaling.workers_max)
    body = create_body(goal, allowed)
    assert errors_of("POST", "/v2/serverless", body) == []
    workers = body["workers"]
    assert isinstance(workers, dict)
    assert allowed is not None or workers["max"] >= max(1, workers["min"], replicas)
    assert workers["max"] >= workers["min"]
    assert patch_body(goal, made(body)) == {}


def wanted_or_refused(asked: RevisionPlan, **environ: str) -> Wanted | None:
    """None where it was refused, with every field named."""
    try:
        return wanted(asked, NAME, settings(**environ))
    except Rejected as error:
        fields = error.fields
    assert fields
    assert all(f.field and f.rule and f.message for f in fields)
    return None


@given(before=wishes, after=wishes)
def test_every_change_is_valid_and_is_all_that_is_needed(before: Serverless, after: Serverless) -> None:
    same_type = replace(after, endpoint_type=before.endpoint_type)
    try:
        old, goal = body_of(plan(serverless=before)), wanted(plan(serverless=same_type), NAME, settings())
    except Rejected:
        return
    change = patch_body(goal, made(old))
    assert errors_of("PATCH", "/v2/serverless/{id}", change) == []
    assert patch_body(goal, made({**old, **change})) == {}


def test_a_plain_model() -> None:
    assert body_of(plan(SHAPE="round")) == {
        "name": NAME,
        "type": "QUEUE",
        "image": settings().images["diffusers"],
        "env": {
            "SHAPE": "round",
            "MOORAGE_ENDPOINT_NAME": NAME,
            "MOORAGE_INSTALLATION": INSTALLATION,
            "MOORAGE_WORKERS_MAX": "3",
            "MOORAGE_WORKER_MODEL": "acme/painter",
            "MOORAGE_WORKER_MODEL_ID": "acme/painter",
            "MOORAGE_WORKER_REVISION": "0" * 40,
            "MOORAGE_WORKER_ENGINE": "diffusers",
            "MOORAGE_WORKER_TASK": "text-to-image",
            "MOORAGE_WORKER_FACE": "jobs",
        },
        "disk": 34,
        "gpu": {"pools": ["AMPERE_24"], "count": 1},
        "workers": {"min": 0, "max": 3, "idleTimeout": 120},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4.0},
        "timeout": 600_000,
        "flashboot": "FLASHBOOT",
    }


def test_what_a_worker_needs_for_its_cache_callbacks_and_the_hub() -> None:
    asked = replace(
        plan(),
        hub_token="hf_x",
        callback=Callback("https://moorage.example/callbacks", "whsec_x"),
        cache=WorkerCache(CacheScope.PRIVATE, "s3://b/p", "https://r2.example", "id", "secret"),
        dtype="bfloat16",
        variant="fp16",
    )
    env = create_body(wanted(asked, NAME, settings(hub_url="http://127.0.0.1:9")))["env"]
    assert isinstance(env, dict)
    assert (
        env
        | {
            "HF_TOKEN": "hf_x",
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "MOORAGE_CALLBACK_URL": "https://moorage.example/callbacks",
            "MOORAGE_CALLBACK_SECRET": "whsec_x",
            "MOORAGE_CACHE_SCOPE": "private",
            "MOORAGE_CACHE_URL": "s3://b/p",
            "MOORAGE_CACHE_ACCESS_KEY_ID": "id",
            "MOORAGE_CACHE_SECRET_ACCESS_KEY": "secret",
            "MOORAGE_CACHE_ENDPOINT_URL": "https://r2.example",
            "MOORAGE_WORKER_DTYPE": "bfloat16",
            "MOORAGE_WORKER_VARIANT": "fp16",
        }
        == env
    )


def test_a_shared_cache_gives_a_worker_no_keys() -> None:
    cache = WorkerCache(CacheScope.SHARED, "https://moorage.example/manifest", None, "id", "secret")
    env = body_of(replace(plan(), cache=cache))["env"]
    assert isinstance(env, dict)
    assert {k: v for k, v in env.items() if k.startswith("MOORAGE_CACHE")} == {
        "MOORAGE_CACHE_SCOPE": "shared",
        "MOORAGE_CACHE_MANIFEST_URL": "https://moorage.example/manifest",
    }


def test_an_image_of_the_owners_own_runs_as_it_is() -> None:
    asked = replace(
        plan(ContainerImage("acme/own:1"), SHAPE="round"), callback=Callback("https://x", "whsec_x")
    )
    body = body_of(asked)
    assert body["image"] == "acme/own:1"
    assert body["env"] == {
        "SHAPE": "round",
        "MOORAGE_ENDPOINT_NAME": NAME,
        "MOORAGE_INSTALLATION": INSTALLATION,
        "MOORAGE_WORKERS_MAX": "3",
    }


def test_behind_a_load_balancer_the_worker_speaks_http() -> None:
    body = body_of(plan(serverless=LB))
    env = body["env"]
    assert isinstance(env, dict)
    assert body["type"] == "LOAD_BALANCER"
    assert body["scaling"] == {"type": "REQUEST_COUNT", "requestCount": 4}
    assert body["ports"] == ["8000/http"]
    assert (env["MOORAGE_WORKER_FACE"], env["PORT"], env["HEALTH_CHECK_PATH"]) == ("http", "8000", "/ping")


@pytest.mark.parametrize(
    ("replicas", "wish", "least", "most"),
    [
        (1, Serverless(), 0, 3),
        (2, Serverless(), 2, 3),
        (4, Serverless(), 4, 4),
        (1, Serverless(workers_min=2), 2, 3),
        (3, Serverless(workers_min=0), 0, 3),
        (1, Serverless(workers_max=1), 0, 1),
        (1, Serverless(workers_min=5), 5, 5),
    ],
)
def test_how_many_workers(replicas: int, wish: Serverless, least: int, most: int) -> None:
    workers = body_of(plan(replicas=replicas, serverless=wish))["workers"]
    assert workers == {"min": least, "max": most, "idleTimeout": 120}


@pytest.mark.parametrize(
    ("wish", "field", "rule"),
    [
        (
            Serverless(scaler_type=ScalerType.REQUEST_COUNT, idle_timeout=60),
            "idle_timeout",
            "not_with_request_count",
        ),
        (replace(LB, scaler_type=ScalerType.QUEUE_DELAY), "scaler_type", "needs_queue"),
        (Serverless(scaler_value=0.1), "scaler_value", "too_small"),
        (replace(LB, scaler_value=1.5), "scaler_value", "whole_number"),
        (Serverless(idle_timeout=3601), "idle_timeout", "out_of_range"),
        (Serverless(execution_timeout=1), "execution_timeout", "out_of_range"),
        (Serverless(workers_min=3, workers_max=2), "workers_max", "below_minimum"),
    ],
)
def test_rules_of_runpod_are_told_with_the_owners_field(wish: Serverless, field: str, rule: str) -> None:
    with pytest.raises(Rejected) as raised:
        body_of(plan(serverless=wish))
    assert [(f.field, f.rule) for f in raised.value.fields] == [(field, rule)]


def test_a_queue_that_counts_requests_has_no_idle_timeout() -> None:
    body = body_of(plan(serverless=Serverless(scaler_type=ScalerType.REQUEST_COUNT)))
    assert body["workers"] == {"min": 0, "max": 3}


@pytest.mark.parametrize("name", ["MOORAGE_INSTALLATION", "RUNPOD_POD_ID"])
def test_names_of_the_platform_are_not_the_tenants(name: str) -> None:
    with pytest.raises(Rejected) as raised:
        body_of(replace(plan(), env={name: "x"}))
    assert [(f.field, f.rule) for f in raised.value.fields] == [(f"env.{name}", "reserved_name")]


def test_what_cannot_run_there() -> None:
    with pytest.raises(Rejected, match="set MOORAGE_RUNPOD_IMAGE_VLLM"):
        body_of(replace(plan(), runtime="vllm"))
    with pytest.raises(Rejected, match="Hub and container images"):
        body_of(plan(UploadedModel("m")))
    with pytest.raises(Rejected, match="no offer"):
        body_of(plan(pool="AMPERE_24:one"))


def test_several_gpus() -> None:
    assert body_of(plan(pool="AMPERE_80:2"))["gpu"] == {"pools": ["AMPERE_80"], "count": 2}


class TestQuota:
    def test_what_the_quota_left_is_marked_and_kept(self) -> None:
        asked = plan(serverless=Serverless(workers_max=8))
        body = body_of(asked, 2)
        env = body["env"]
        assert isinstance(env, dict)
        assert body["workers"] == {"min": 0, "max": 2, "idleTimeout": 120}
        assert (env["MOORAGE_WORKERS_MAX"], env["MOORAGE_WORKERS_MAX_ASKED"]) == ("2", "8")
        assert drift(made(body)) is None
        assert patch_body(self.goal(8), made(body)) == {}

    def test_another_wish_tries_the_quota_again(self) -> None:
        change = patch_body(self.goal(6), made(body_of(plan(serverless=Serverless(workers_max=8)), 2)))
        assert change["workers"] == {"min": 0, "max": 6, "idleTimeout": 120}

    @staticmethod
    def goal(most: int) -> Wanted:
        return wanted(plan(serverless=Serverless(workers_max=most)), NAME, settings())


def test_drift_is_told_and_put_back() -> None:
    there = made({**body_of(plan()), "workers": {"min": 0, "max": 0, "idleTimeout": 120}})
    assert drift(there) == "workers_max was 3 and is 0 at RunPod"
    assert patch_body(wanted(plan(), NAME, settings()), there) == {
        "workers": {"min": 0, "max": 3, "idleTimeout": 120}
    }


def test_variables_of_a_template_are_left_alone() -> None:
    with_template: RunPodSettings = settings(TEMPLATE_ID="t1")
    body = body_of(plan(), TEMPLATE_ID="t1")
    env = body["env"]
    assert isinstance(env, dict)
    there = made({**body, "env": {"FROM_TEMPLATE": "1", **env}})
    assert patch_body(wanted(plan(), NAME, with_template), there) == {}
    change = patch_body(wanted(plan(SHAPE="round"), NAME, with_template), there)
    assert change == {"env": {"FROM_TEMPLATE": "1", **env, "SHAPE": "round"}}


def test_a_variable_that_is_gone_is_removed() -> None:
    there = made(body_of(plan(SHAPE="round")))
    assert patch_body(wanted(plan(), NAME, settings()), there) == {"env": body_of(plan())["env"]}
