"""Each rule of a workload broken once: refused by its field and its name, and nothing else is."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.naming import slug_of
from moorage.domain.request import ERRORS_TOLD
from moorage.domain.workload import (
    Autoscale,
    HealthCheck,
    Metric,
    Ports,
    Queued,
    Resources,
    ScalingTarget,
    Volume,
    Workload,
)
from moorage.domain.workload_rules import (
    DNS_LABEL,
    MAX_VOLUMES,
    MOUNT_PATH,
    TAGS,
    broken_rules,
    default_volume_name,
)

GIB = 1024**3
CONTAINER = Workload(
    resources=Resources(2, 4, 8 * GIB, 16 * GIB),
    ports=Ports(8200, 9000),
    health=HealthCheck("/health", 8200),
    entrypoint=("python", "-m", "app"),
    command=("--port", "8200"),
    working_dir="/app",
    volumes=(Volume("pvc-data", "/data", 50 * GIB),),
    autoscale=Autoscale((ScalingTarget(Metric.GPU, 80),)),
    grace_seconds=45,
    secret_env=("TOKEN",),
    tag="production",
)
MODEL = Workload(
    resources=Resources(2, 4, 8 * GIB, 16 * GIB),
    volumes=(Volume("pvc-data", "/data", 50 * GIB),),
    autoscale=Autoscale((ScalingTarget(Metric.QUEUE_LENGTH, 5),)),
    queued=Queued(3),
)
ENV = ("TOKEN", "PORT")


def broken(workload: Workload, *, imported: bool = True, env: tuple[str, ...] = ENV) -> set[tuple[str, str]]:
    errors = broken_rules(workload, imported=imported, custom=not imported, env=env)
    assert all(error.message for error in errors)
    return {(error.field.removeprefix("body."), error.rule) for error in errors}


def test_a_workload_that_keeps_every_rule_is_not_refused() -> None:
    assert broken(CONTAINER) == set()
    assert broken(MODEL, imported=False, env=()) == set()


def scaled(*targets: ScalingTarget, to_zero: bool = False, cooldown: int | None = None) -> Workload:
    return replace(CONTAINER, autoscale=Autoscale(targets, cooldown), scale_to_zero=to_zero)


GPU = ScalingTarget(Metric.GPU, 80)
CPU = ScalingTarget(Metric.CPU, 80)
VOLUME = Volume("pvc-data", "/data", GIB)


@pytest.mark.parametrize(
    ("workload", "field", "rule"),
    [
        (
            replace(CONTAINER, resources=Resources(0, 4, GIB, GIB)),
            "resources.cpu_request",
            "greater_than_zero",
        ),
        (
            replace(CONTAINER, resources=Resources(1, -1, GIB, GIB)),
            "resources.cpu_request",
            "greater_than_zero",
        ),
        (replace(CONTAINER, resources=Resources(math.nan)), "resources.cpu_request", "greater_than_zero"),
        (replace(CONTAINER, resources=Resources(math.inf)), "resources.cpu_request", "range"),
        (
            replace(CONTAINER, resources=Resources(4, 2, GIB, GIB)),
            "resources.cpu_limit",
            "limit_at_least_request",
        ),
        (
            replace(CONTAINER, resources=Resources(1, 1, 0, GIB)),
            "resources.memory_request",
            "greater_than_zero",
        ),
        (
            replace(CONTAINER, resources=Resources(1, 1, 2 * GIB, GIB)),
            "resources.memory_limit",
            "limit_at_least_request",
        ),
        (
            replace(CONTAINER, resources=Resources(memory_limit=10**30)),
            "resources.memory_request",
            "range",
        ),
        (replace(CONTAINER, resources=Resources(gpus=-1)), "resources.gpus", "range"),
        (replace(CONTAINER, resources=Resources(gpus=65)), "resources.gpus", "range"),
        (replace(CONTAINER, ports=None), "ports", "required_for_imported_containers"),
        (replace(CONTAINER, health=None), "health", "required_for_imported_containers"),
        (replace(CONTAINER, ports=Ports(0)), "ports.http", "port"),
        (replace(CONTAINER, ports=Ports(65536)), "ports.http", "port"),
        (replace(CONTAINER, ports=Ports(80, 0)), "ports.grpc", "port"),
        (replace(CONTAINER, ports=Ports(80, 80)), "ports.grpc", "different_ports"),
        (replace(CONTAINER, health=HealthCheck("health", 80)), "health.path", "url_path"),
        (replace(CONTAINER, health=HealthCheck("/a b", 80)), "health.path", "url_path"),
        (replace(CONTAINER, health=HealthCheck("/h", 65536)), "health.port", "port"),
        (replace(CONTAINER, health=HealthCheck("/h", 80, -1)), "health.initial_delay", "range"),
        (replace(CONTAINER, health=HealthCheck("/h", 80, 0, 0)), "health.period", "range"),
        (replace(CONTAINER, health=HealthCheck("/h", 80, 0, 1, 0)), "health.timeout", "range"),
        (replace(CONTAINER, entrypoint=("",)), "entrypoint", "program"),
        (replace(CONTAINER, entrypoint=("a\x00b",)), "entrypoint", "argument"),
        (replace(CONTAINER, command=("\ud800",)), "command", "argument"),
        (replace(CONTAINER, command=("x" * 40_000,)), "command", "size"),
        (replace(CONTAINER, working_dir="app"), "working_dir", "absolute_path"),
        (replace(CONTAINER, working_dir=""), "working_dir", "absolute_path"),
        (replace(CONTAINER, volumes=(VOLUME,) * (MAX_VOLUMES + 1)), "volumes", "too_many"),
        (
            replace(CONTAINER, volumes=(replace(VOLUME, mount_path="data"),)),
            "volumes[0].mount_path",
            "absolute_path",
        ),
        (
            replace(CONTAINER, volumes=(replace(VOLUME, mount_path="/"),)),
            "volumes[0].mount_path",
            "absolute_path",
        ),
        (
            replace(CONTAINER, volumes=(replace(VOLUME, mount_path="/a/../etc"),)),
            "volumes[0].mount_path",
            "absolute_path",
        ),
        (
            replace(CONTAINER, volumes=(replace(VOLUME, mount_path="/a:b"),)),
            "volumes[0].mount_path",
            "absolute_path",
        ),
        (replace(CONTAINER, volumes=(replace(VOLUME, name="PVC_data"),)), "volumes[0].name", "dns_label"),
        (replace(CONTAINER, volumes=(replace(VOLUME, name="a" * 64),)), "volumes[0].name", "dns_label"),
        (replace(CONTAINER, volumes=(replace(VOLUME, size=0),)), "volumes[0].size", "range"),
        (replace(CONTAINER, volumes=(replace(VOLUME, size=10**18),)), "volumes[0].size", "range"),
        (
            replace(CONTAINER, volumes=(replace(VOLUME, storage_class="Fast disks"),)),
            "volumes[0].storage_class",
            "dns_subdomain",
        ),
        (
            replace(CONTAINER, volumes=(VOLUME, replace(VOLUME, mount_path="/other"))),
            "volumes[1].name",
            "distinct",
        ),
        (
            replace(CONTAINER, volumes=(VOLUME, replace(VOLUME, name="other", mount_path="/data/"))),
            "volumes[1].mount_path",
            "distinct",
        ),
        (scaled(), "autoscale.targets", "non_empty"),
        (scaled(GPU, GPU), "autoscale.targets[1].metric", "one_target_for_each_metric"),
        (scaled(replace(GPU, target=0)), "autoscale.targets[0].target", "range"),
        (scaled(replace(GPU, target=101)), "autoscale.targets[0].target", "range"),
        (scaled(replace(GPU, target=math.nan)), "autoscale.targets[0].target", "range"),
        (scaled(replace(CPU, target=80.5)), "autoscale.targets[0].target", "range"),
        (scaled(GPU, replace(CPU, percentile=95)), "autoscale.targets[1].percentile", "only_for_latency"),
        (
            scaled(ScalingTarget(Metric.LATENCY, 500, 99)),
            "autoscale.targets[0].percentile",
            "one_of",
        ),
        (
            scaled(ScalingTarget(Metric.QUEUE_LENGTH, 5)),
            "autoscale.targets[0].metric",
            "only_for_async",
        ),
        (scaled(GPU, cooldown=300), "autoscale.cooldown_seconds", "only_for_scale_to_zero"),
        (scaled(GPU, to_zero=True, cooldown=-1), "autoscale.cooldown_seconds", "range"),
        (scaled(CPU, to_zero=True), "scale_to_zero", "needs_another_metric"),
        (
            scaled(CPU, ScalingTarget(Metric.RAM, 80), to_zero=True),
            "scale_to_zero",
            "needs_another_metric",
        ),
        (
            replace(CONTAINER, autoscale=None, scale_to_zero=True),
            "scale_to_zero",
            "needs_another_metric",
        ),
        (replace(CONTAINER, queued=Queued()), "queued", "only_for_custom_models"),
        (replace(CONTAINER, grace_seconds=-1), "grace_seconds", "range"),
        (replace(CONTAINER, tag="prod"), "tag", "one_of"),
        (replace(CONTAINER, secret_env=("1ST",)), "secret_env", "env_name"),
        (replace(CONTAINER, secret_env=("OTHER",)), "secret_env", "named_in_env"),
    ],
)
def test_a_broken_rule_of_a_container_is_told_alone(workload: Workload, field: str, rule: str) -> None:
    told = broken(workload)
    assert (f"workload.{field}", rule) in told
    assert {r for _, r in told} == {rule}


@pytest.mark.parametrize(
    ("workload", "field", "rule"),
    [
        (replace(MODEL, entrypoint=("python",)), "entrypoint", "only_for_imported_containers"),
        (replace(MODEL, command=("--x",)), "command", "only_for_imported_containers"),
        (replace(MODEL, working_dir="/app"), "working_dir", "only_for_imported_containers"),
        (replace(MODEL, queued=Queued(0)), "queued.consumers", "range"),
        (replace(MODEL, queued=Queued(1001)), "queued.consumers", "range"),
        (replace(MODEL, queued=None), "autoscale.targets[0].metric", "only_for_async"),
    ],
)
def test_a_broken_rule_of_a_model_is_told_alone(workload: Workload, field: str, rule: str) -> None:
    assert broken(workload, imported=False, env=()) == {(f"workload.{field}", rule)}


def test_environment_variables_are_only_for_containers() -> None:
    assert broken(MODEL, imported=False) == {("env", "only_for_imported_containers")}
    assert broken_rules(MODEL, imported=False, custom=True) == (), "where they are not known, nothing is said"


def test_what_is_neither_container_nor_custom_has_neither_storage_nor_queue() -> None:
    told = {error.rule for error in broken_rules(MODEL, imported=False, custom=False)}
    assert told == {"only_for_imported_and_custom", "only_for_custom_models"}


def test_scaling_to_zero_goes_with_any_other_metric_and_a_cooldown() -> None:
    for metric in set(Metric) - {Metric.CPU, Metric.RAM, Metric.QUEUE_LENGTH}:
        assert broken(scaled(CPU, ScalingTarget(metric, 50), to_zero=True, cooldown=300)) == set()


def test_every_percentile_and_tag_of_the_document_is_taken() -> None:
    for percentile in (50, 75, 90, 95):
        assert broken(scaled(ScalingTarget(Metric.LATENCY, 500, percentile))) == set()
    assert broken(scaled(ScalingTarget(Metric.LATENCY, 500))) == set(), "percentile is optional"
    for tag in TAGS:
        assert broken(replace(CONTAINER, tag=tag)) == set()


def test_the_words_of_the_document_are_used() -> None:
    def words(resources: Resources) -> list[str]:
        found = broken_rules(replace(CONTAINER, resources=resources), imported=True, custom=False)
        return [error.message for error in found]

    assert words(Resources(0, 0, 0, 0)) == [
        "CPU request and limit must be greater than 0",
        "Memory request and limit must be greater than 0",
    ]
    assert words(Resources(2, 1, 2, 1)) == [
        "CPU limit must be greater than or equal to CPU request",
        "Memory limit must be greater than or equal to memory request",
    ]


def test_no_more_errors_are_told_than_can_be_read() -> None:
    many = replace(CONTAINER, secret_env=tuple(f"{n}X" for n in range(100)))
    assert len(broken_rules(many, imported=True, custom=False)) == ERRORS_TOLD


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data", "pvc-data"),
        ("/data/", "pvc-data"),
        ("/data/My_models.v2", "pvc-data-my-models-v2"),
        ("/", "pvc-root"),
        ("/" + "x" * 100, "pvc-" + "x" * 59),
    ],
)
def test_a_volume_without_a_name_is_named_by_its_path(path: str, name: str) -> None:
    assert default_volume_name(path) == name


@given(st.text(max_size=200))
def test_the_default_name_of_a_volume_is_always_one_that_a_cluster_takes(path: str) -> None:
    assert DNS_LABEL.fullmatch(default_volume_name(path))


@given(st.from_regex(MOUNT_PATH, fullmatch=True))
def test_a_mount_path_that_is_taken_stays_below_the_root(path: str) -> None:
    workload = replace(CONTAINER, volumes=(replace(VOLUME, mount_path=path),))
    parts = set(path.split("/"))
    assert bool(broken(workload)) == bool(parts & {".", ".."})


@given(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(allow_nan=True, allow_infinity=True),
)
def test_resources_that_are_taken_are_above_zero_and_in_order(request: float, limit: float) -> None:
    if not broken(replace(CONTAINER, resources=Resources(request, limit))):
        assert 0 < request <= limit < math.inf


@given(st.integers(), st.integers())
def test_ports_that_are_taken_are_ports(http: int, grpc: int) -> None:
    taken = not broken(replace(CONTAINER, ports=Ports(http, grpc)))
    assert taken == (1 <= http <= 65535 and 1 <= grpc <= 65535 and http != grpc)


@given(st.text())
def test_a_slug_has_nine_lower_case_letters_and_follows_from_the_id(id_: str) -> None:
    assert re.fullmatch(r"[a-z]{9}", slug_of(id_))
    assert slug_of(id_) == slug_of(id_)
