"""Which workers an endpoint gets, and where, by the scheduler's own rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_runpod.testing.catalog import Catalog
from moorage_runpod.testing.endpoint import EndpointSpec, Gpu, Scaling
from moorage_runpod.testing.scheduler import Lack, Load, Placement, WorkerView, place, plan

DELAY = EndpointSpec(
    "a", "QUEUE", Scaling("QUEUE_DELAY", 4), "x:1", gpu=Gpu(("AMPERE_24", "ADA_24")), idle_timeout=10
)
COUNT = replace(DELAY, scaling=Scaling("REQUEST_COUNT", 2), idle_timeout=None)


def worker(
    name: str = "w", *, up: bool = True, idle: float | None = None, stale: bool = False, placed: bool = True
) -> WorkerView:
    return WorkerView(name, stale, placed, up, idle)


BUSY, STARTING = worker(), worker(up=False)
NO_MACHINE = worker(up=False, placed=False)


@pytest.mark.parametrize(
    ("spec", "workers", "load", "started"),
    [
        (DELAY, [], Load(), 0),
        (replace(DELAY, workers_min=2), [], Load(), 2),
        (DELAY, [], Load(queued=5), 1),  # the first comes at once
        (DELAY, [BUSY], Load(5, 1, 3.9), 0),
        (DELAY, [BUSY], Load(5, 1, 4.0), 1),
        (DELAY, [BUSY, STARTING], Load(5, 1, 9.0), 0),  # one is on its way
        (replace(DELAY, workers_max=1), [BUSY], Load(5, 1, 9.0), 0),
        (replace(DELAY, workers_max=0), [], Load(5), 0),
        (COUNT, [], Load(queued=5), 3),
        (COUNT, [BUSY], Load(queued=2, running=1), 1),
        (replace(COUNT, workers_max=2), [], Load(queued=50), 2),
        (DELAY, [worker(stale=True)], Load(queued=1), 1),
    ],
)
def test_who_comes(spec: EndpointSpec, workers: list[WorkerView], load: Load, started: int) -> None:
    assert plan(spec, workers, load, 100).start == started


@pytest.mark.parametrize(
    ("spec", "workers", "stopped", "look_again"),
    [
        (DELAY, [worker(idle=95)], (), 5),
        (DELAY, [worker(idle=90)], ("w",), None),
        (replace(DELAY, workers_min=1), [worker(idle=0)], (), None),
        (replace(DELAY, workers_max=0), [worker(idle=99)], ("w",), None),
        (replace(DELAY, workers_max=0), [BUSY], ("w",), None),
        (DELAY, [NO_MACHINE], ("w",), None),
        (DELAY, [STARTING], (), None),
        (DELAY, [worker("old", idle=99, stale=True)], ("old",), None),
        (DELAY, [worker("old", stale=True)], (), None),  # it ends its job first
        (
            replace(DELAY, workers_min=1),
            [worker("late", idle=90), worker("early", idle=80)],
            ("early",),
            None,
        ),
    ],
)
def test_who_goes(
    spec: EndpointSpec, workers: list[WorkerView], stopped: tuple[str, ...], look_again: float | None
) -> None:
    told = plan(spec, workers, Load(), 100)
    assert (told.stop, told.look_again) == (stopped, look_again)


VIEWS = st.lists(
    st.builds(
        worker,
        st.uuids().map(str),
        up=st.booleans(),
        idle=st.none() | st.floats(0, 100),
        stale=st.booleans(),
        placed=st.booleans(),
    ),
    max_size=6,
)
LOADS = st.builds(Load, st.integers(0, 20), st.integers(0, 6), st.floats(0, 60))


@given(st.sampled_from([DELAY, COUNT]), VIEWS, LOADS, st.integers(0, 3), st.integers(0, 3))
def test_never_more_than_allowed_never_fewer_than_asked(
    spec: EndpointSpec, workers: list[WorkerView], load: Load, least: int, more: int
) -> None:
    spec = replace(spec, workers_min=least, workers_max=least + more)
    told = plan(spec, workers, load, 100)
    left = [w for w in workers if not w.stale and w.id not in told.stop]
    assert least <= len(left) + told.start
    assert len(left) + told.start <= max(least + more, 0)
    assert len(set(told.stop)) == len(told.stop)
    assert told.look_again is None or told.look_again > 0


def placed(
    spec: EndpointSpec, *, volumes: str = "", throttled: str = "", absent: str = ""
) -> Placement | Lack:
    names = [frozenset(names.split()) for names in (volumes, throttled, absent)]
    return place(spec, Catalog(), *names)


def test_the_first_pool_with_a_machine_wins() -> None:
    assert placed(DELAY) == Placement("AMPERE_24", "NVIDIA L4", "EU-RO-1", 0.69)
    assert placed(DELAY, throttled="AMPERE_24") == Placement(
        "ADA_24", "NVIDIA GeForce RTX 4090", "EU-RO-1", 1.1
    )
    two = replace(DELAY, gpu=Gpu(("AMPERE_24",), count=2, excluded_types=("NVIDIA L4",)))
    assert placed(two) == Placement("AMPERE_24", "NVIDIA RTX A5000", "EU-RO-1", 1.38)


def test_a_pool_without_machines() -> None:
    assert placed(DELAY, throttled="*") is Lack.THROTTLED
    assert placed(DELAY, absent="AMPERE_24 ADA_24") is Lack.ABSENT
    assert placed(DELAY, absent="AMPERE_24", throttled="ADA_24") is Lack.THROTTLED


def test_places_are_a_constraint() -> None:
    hopper = replace(DELAY, gpu=Gpu(("HOPPER_141",)))
    assert placed(replace(hopper, data_center_ids=("EU-RO-1",))) is Lack.THROTTLED
    told = placed(hopper, volumes="EU-CZ-1")
    assert isinstance(told, Placement)
    assert told.data_center == "EU-CZ-1"
