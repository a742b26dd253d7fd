"""Quantities are read exactly, and written as a cluster writes them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_kubernetes.quantities import (
    cpu_quantity,
    memory_quantity,
    parse_count,
    parse_cpu,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", "2"),
        ("100m", "0.1"),
        ("0.1", "0.1"),
        (".5", "0.5"),
        ("1.5Gi", "1610612736"),
        ("128974848", "128974848"),
        ("129M", "129000000"),
        ("129e6", "129000000"),
        ("1E3", "1000"),
        ("1E", "1e18"),
        ("7Ki", "7168"),
        ("123456789n", "0.123456789"),
        ("5u", "0.000005"),
        ("12k", "12000"),
        ("-1", "-1"),
    ],
)
def test_reads_each_form(text: str, number: str) -> None:
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1gi", "1K", "1KiB", "--1", "1.2.3", "٣", "nan", "1e"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


def test_a_part_of_a_whole_thing_counts_as_one() -> None:
    assert parse_count("1500m") == 2
    assert parse_cpu("1500m") == 1.5


@given(st.integers(1, 10**6))
def test_thousandths_of_cores_come_back(thousandths: int) -> None:
    assert parse_quantity(cpu_quantity(thousandths / 1000)) == Decimal(thousandths) / 1000


@given(st.integers(0, 10**15))
def test_bytes_come_back(count: int) -> None:
    assert parse_count(memory_quantity(count)) == count


def test_writes_what_people_write() -> None:
    assert (cpu_quantity(2), cpu_quantity(0.5), cpu_quantity(0)) == ("2", "500m", "1m")
    assert (memory_quantity(8 * 2**30), memory_quantity(1536 * 2**20)) == ("8Gi", "1536Mi")
