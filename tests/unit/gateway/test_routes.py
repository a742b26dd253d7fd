from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.compute import Estimate, Offer, Rung
from moorage.domain.deployment import Attempt, Deployment, DeploymentSpec, Phase, Status
from moorage.domain.model import HubModel
from moorage.gateway.persistent_map import PersistentMap
from moorage.gateway.routes import Route, RoutePublisher, RouteTable
from moorage.testing.store_rows import deployment as deployment_row

KEYS = st.text("abc", min_size=1, max_size=2)


@given(st.lists(st.tuples(KEYS, st.one_of(st.none(), st.integers()))))
def test_a_persistent_map_agrees_with_a_dict_and_its_older_copies_stay(
    steps: list[tuple[str, int | None]],
) -> None:
    persistent: PersistentMap[str, int] = PersistentMap()
    model: dict[str, int] = {}
    copies = [(persistent, dict(model))]
    for key, value in steps:
        if value is None:
            persistent = persistent.without(key)
            model.pop(key, None)
        else:
            persistent = persistent.with_(key, value)
            model[key] = value
        copies.append((persistent, dict(model)))
    for copy, expected in copies:
        assert len(copy) == len(expected)
        assert sorted(copy.values()) == sorted(expected.values())
        assert all(copy.get(key) == value and key in copy for key, value in expected.items())


ROUTES = st.builds(
    Route,
    deployment_id=st.sampled_from([f"dep_{i}" for i in range(5)]),
    organization_id=st.sampled_from(["o1", "o2"]),
    name=st.sampled_from(["x", "y", "m/1", "dep_0"]),
    models=st.lists(st.sampled_from(["m/1", "m/2", "x"]), max_size=2).map(tuple),
    targets=st.sampled_from([(), ("http://a",)]),
)


def brute_force(routes: dict[str, Route], organization_id: str, key: str) -> Route | None:
    own = [route for route in routes.values() if route.organization_id == organization_id]
    by_id = [route for route in own if route.deployment_id == key]
    by_name = [route for route in own if route.name == key]
    by_model = [route for route in own if key in route.models]
    for found in (by_id, by_name, by_model):
        if found:
            return max(found, key=lambda route: (bool(route.targets), route.deployment_id))
    return None


@given(st.lists(st.one_of(ROUTES, st.sampled_from([f"dep_{i}" for i in range(5)]))))
def test_lookup_agrees_with_brute_force_after_any_changes(steps: list[Route | str]) -> None:
    table = RouteTable()
    model: dict[str, Route] = {}
    for step in steps:
        if isinstance(step, str):
            table = table.without(step)
            model.pop(step, None)
        else:
            table = table.with_route(step)
            model[step.deployment_id] = step
    rebuilt = RouteTable(model.values())
    assert len(table) == len(model)
    for organization in ("o1", "o2"):
        for key in ("x", "y", "m/1", "m/2", *(f"dep_{i}" for i in range(5))):
            expected = brute_force(model, organization, key)
            assert table.find(organization, key) == expected
            assert rebuilt.find(organization, key) == expected


def test_a_model_of_several_deployments_is_answered_by_the_newest_that_serves() -> None:
    old = Route("dep_1", "o", "old", ("org/m",), ("http://a",))
    new = Route("dep_2", "o", "new", ("org/m",), (), phase=Phase.LOADING_MODEL)
    table = RouteTable([old, new])
    assert table.find("o", "org/m") == old
    ready = Route("dep_2", "o", "new", ("org/m",), ("http://b",))
    assert table.with_route(ready).find("o", "org/m") == ready
    assert table.find("o", "org/m") == old  # the older table is as it was


def test_a_route_is_taken_from_a_deployment() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    status = Status(Phase.READY, now, seeking_since=now, targets=("http://127.0.0.1:1",))
    deployment = Deployment(
        "dep_1",
        "o",
        "digits",
        DeploymentSpec(HubModel("org/digits", "abc")),
        status,
        now,
        "key_1",
        revision=3,
    )
    assert Route.of(deployment) == Route(
        "dep_1", "o", "digits", ("org/digits",), ("http://127.0.0.1:1",), 3, Phase.READY
    )


def test_a_route_names_the_account_of_the_offer_before_that_of_the_provider() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    offer = Offer("o", "kubernetes", None, 0, 1, 1, 0.1, "book", "2026-01-01", account="crd_cluster")
    placed = deployment_row(1)
    for account, credential in (("crd_cluster", "crd_cluster"), (None, "crd_of_provider")):
        rung = Rung(replace(offer, account=account), "transformers", Estimate(1, 1.0, ()))
        status = replace(placed.status, attempt=Attempt(1, rung, "mrg-1", at))
        spec = replace(placed.spec, credentials={"kubernetes": "crd_of_provider"})
        assert Route.of(replace(placed, status=status, spec=spec)).credential_id == credential
    assert Route.of(placed).credential_id is None


def test_an_update_in_a_large_table_costs_little_even_when_all_serve_one_model() -> None:
    def route(i: int, target: str = "http://a") -> Route:
        return Route(f"dep_{i:05}", "o", f"name-{i}", ("org/m",), (target,))

    began = time.process_time()
    table = RouteTable(route(i) for i in range(10_000))
    built = time.process_time() - began
    updates = 200
    began = time.process_time()
    for i in range(updates):
        table = table.with_route(route(i * 50, "http://b"))
    updated = (time.process_time() - began) / updates
    assert len(table) == 10_000
    assert updated < built / 20  # measured: about 1/300


def test_publishing_swaps_the_table() -> None:
    publisher = RoutePublisher()
    before = publisher.current
    publisher.publish(before.with_route(Route("dep_1", "o", "a")))
    assert "dep_1" in publisher.current
    assert "dep_1" not in before
