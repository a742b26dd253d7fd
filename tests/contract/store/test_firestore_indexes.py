"""The index file has what the searches need, no more and no less: Firestore asks for it, its emulator not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moorage.adapters.firestore.indexes import composite, index_file, own, unsearched
from moorage.adapters.firestore.queries import DEPLOYMENTS, DOWN, SHAPES, UP, Shape

FILE = Path(__file__).parents[3] / "deploy" / "firestore.indexes.json"


def test_the_file_is_what_the_searches_need() -> None:
    told = "run `python -m moorage.adapters.firestore.indexes > deploy/firestore.indexes.json`"
    assert json.loads(FILE.read_text()) == index_file(), told


@pytest.mark.parametrize(
    ("shape", "needed"),
    [
        (Shape("c", (("a", "=="),)), []),
        (Shape("c", (("a", "=="), ("b", "in"))), []),
        (Shape("c", (("a", "<="),), (("a", UP),)), []),
        (Shape("c", (), (("a", UP), ("__name__", UP))), []),
        (Shape("c", (("a", "=="),), (("b", DOWN), ("__name__", DOWN))), [(("a", UP), ("b", DOWN))]),
        (Shape("c", (("a", "in"), ("b", "<="))), [(("a", UP), ("b", UP))]),
        # What is compared by a range comes after what is ordered by.
        (Shape("c", (("a", "<="),), (("b", UP),)), [(("b", UP), ("a", UP))]),
        (Shape("c", (("b", ">"), ("a", "<=")), (("b", UP),)), [(("b", UP), ("a", UP))]),
        (Shape("c", (("a", "=="), ("b", "==")), sums=("s",)), [(("a", UP), ("b", UP), ("s", UP))]),
        (
            Shape("c", (("a", "=="), ("b", "==")), (("t", DOWN),), joined=True),
            [(("a", UP), ("t", DOWN)), (("b", UP), ("t", DOWN))],
        ),
    ],
)
def test_an_index_is_told_from_the_shape_of_a_search(
    shape: Shape, needed: list[tuple[tuple[str, str], ...]]
) -> None:
    assert composite([shape]) == {("c", fields) for fields in needed}


def test_any_choice_of_filters_is_joined_from_one_index_each() -> None:
    assert len(DEPLOYMENTS) == 2**4
    assert len(composite(DEPLOYMENTS.values())) == 5


def test_a_field_that_is_searched_alone_keeps_its_index() -> None:
    searched = own(SHAPES)
    assert {("moorage_api_keys", "hash"), ("moorage_jobs", "forget_at")} <= searched
    assert searched.isdisjoint(unsearched(SHAPES))
    assert {("moorage_jobs", "body"), ("moorage_body_parts", "data")} <= unsearched(SHAPES)
