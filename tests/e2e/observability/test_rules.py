"""The dashboard and the alert rules: every expression parses, and asks for nothing that is not told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.e2e.api.conftest import Api

from .conftest import Scraped, scraped

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "moorage.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
ADDED = {"instance", "job", "le"}  # labels that come with a scrape, or with a histogram
ROWS = ["Service", "API", "Deployments", "Engine", "Providers", "Store", "Webhooks", "Gateway"]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for panel in panels():
        for target in panel.get("targets", []):
            # as Grafana fills them in
            yield target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
    for rule in alerts():
        yield rule["expr"]


def selectors(node: object) -> Iterator[Any]:
    """Every vector selector in a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "args", "param", "vector_selector", "vs", "selector"):
        inner = getattr(node, name, None)
        for each in inner if isinstance(inner, list | tuple) else [inner]:
            if each is not None and not isinstance(each, str):
                yield from selectors(each)


def grouping(expression: str) -> set[str]:
    """The labels that its sums keep."""
    return {
        label.strip() for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(",")
    }


@pytest.fixture
async def told(api: Api) -> Scraped:
    """The metrics of a service that has done a bit of everything."""
    id_ = await api.deploy(user_webhook_url=api.receiver.hook)
    await api.until(id_, "ready")
    await api.settled(id_)
    await api.owner.post(f"/v1/models/{id_}/infer", json={"inputs": [1]})
    await api.owner.post(f"/v2/{id_}/runsync", json={"input": {"inputs": 1}})
    return await scraped(api.url)


async def test_every_expression_asks_for_what_is_told(told: Scraped) -> None:
    asked: set[str] = set()
    for expression in expressions():
        found = list(selectors(promql_parser.parse(expression)))
        names = {selector.name for selector in found}
        assert names == set(re.findall(r"moorage_\w+", expression)), "the walk has found all of them"
        assert names, expression
        assert names <= told.names, f"{expression} asks for {names - told.names}"
        for selector in found:
            known = told.labels(selector.name)
            matched = {matcher.name for matcher in selector.matchers.matchers}
            if told.value(selector.name) or known:
                assert matched <= known | ADDED, f"{expression}: {selector.name} has {known}"
        asked |= names
    ours = {
        name for name in told.names if name.startswith("moorage_") and not name.startswith("moorage_process")
    }
    unseen = {n for n in ours - asked if not n.endswith(("_sum", "_count"))}
    assert unseen == set(), "everything that is counted is shown, or watched"


async def test_every_label_that_is_grouped_by_is_told(told: Scraped) -> None:
    for expression in expressions():
        (*_,) = selectors(promql_parser.parse(expression))
        grouped = grouping(expression)
        names = set(re.findall(r"moorage_\w+", expression))
        if all(told.labels(name) for name in names):
            known = {label for name in names for label in told.labels(name)}
            assert grouped <= known | ADDED, expression


def test_an_expression_that_is_broken_would_be_found() -> None:
    with pytest.raises(ValueError, match=r"."):
        promql_parser.parse("sum(rate(moorage_api_requests_total[5m])")


def test_the_dashboard_is_whole() -> None:
    found = panels()
    assert [panel["title"] for panel in found if panel["type"] == "row"] == ROWS
    assert len({panel["id"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert at["x"] + at["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"]
            letters = [target["refId"] for target in panel["targets"]]
            assert len(set(letters)) == len(letters) > 0


def test_every_alert_says_what_to_do() -> None:
    found = alerts()
    assert len({rule["alert"] for rule in found}) == len(found) > 8
    for rule in found:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert len(rule["annotations"]["description"]) > 40
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert used <= grouping(rule["expr"]), rule["alert"]


async def test_the_table_lists_what_is_told_with_its_labels(told: Scraped) -> None:
    text = (DEPLOY.parent / "docs" / "observing.md").read_text()
    rows = dict(re.findall(r"^\| `(moorage_\w+)` \|([^|]*)\|", text, re.MULTILINE))
    names = {
        family.name + ("_total" if family.type == "counter" else "") for family in told.families.values()
    }
    assert rows.keys() == {name for name in names if not name.startswith("moorage_process_")}
    for name, labels in rows.items():
        asked = f"{name}_bucket" if f"{name}_bucket" in told.names else name
        found = told.labels(asked) - {"le"}
        assert not found or found == {label.strip() for label in labels.split(",")}, name
