"""Equal requests share one answer, for a while, and never across tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from moorage.adapters.hub import HuggingFaceHub
from moorage.adapters.hub.flights import Flights
from moorage.domain.model import HubModel
from moorage.errors import HubUnavailable, ModelMissing
from moorage.testing.hub import Fault, HubStandIn

MakeRepo = Callable[[dict[str, Any]], Path]  # Any: any JSON object, text or bytes
MODEL = HubModel("acme/model")


class Time:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def client(hub: HubStandIn, make_repo: MakeRepo, time: Time) -> AsyncIterator[HuggingFaceHub]:
    await hub.add_repo("acme/model", make_repo({"model.onnx": b"graph"}))
    client = HuggingFaceHub(hub.url, monotonic=time, ttl=60, kept=2)
    yield client
    await client.aclose()


async def test_those_who_ask_at_once_share_one_request(client: HuggingFaceHub, hub: HubStandIn) -> None:
    found = await asyncio.gather(*(client.profile(MODEL, None) for _ in range(20)))
    assert len(set(map(id, found))) == 1
    assert len(hub.requests) == 1


async def test_an_answer_is_kept_for_its_time_also_under_its_commit(
    client: HuggingFaceHub, hub: HubStandIn, time: Time
) -> None:
    found = await client.profile(MODEL, None)
    time.seconds += 59
    await client.profile(MODEL, None)
    await client.profile(HubModel(MODEL.repo_id, found.revision), None)
    assert len(hub.requests) == 1
    time.seconds += 1
    await client.profile(MODEL, None)
    assert len(hub.requests) == 2


async def test_each_token_asks_for_itself(client: HuggingFaceHub, hub: HubStandIn) -> None:
    hub.accept_token("hf_one")
    hub.accept_token("hf_two")
    for token in (None, "hf_one", "hf_two", "hf_two"):
        await client.profile(MODEL, token)
    assert [request.authorized for request in hub.requests] == [False, True, True]


async def test_a_missing_model_is_remembered_for_seconds_and_trouble_not_at_all(
    client: HuggingFaceHub, hub: HubStandIn, time: Time, make_repo: MakeRepo
) -> None:
    typo = HubModel("acme/modle")
    for _ in range(3):
        with pytest.raises(ModelMissing):
            await client.profile(typo, None)
    assert len(hub.requests) == 1
    await hub.add_repo("acme/modle", make_repo({"model.onnx": b"graph"}))
    time.seconds += 5
    assert await client.profile(typo, None)

    hub.fault = Fault.ERROR
    seen = len(hub.requests)
    for _ in range(2):
        with pytest.raises(HubUnavailable):
            await client.profile(HubModel("acme/other"), None)
    assert len(hub.requests) == seen + 2


async def test_who_gives_up_does_not_take_the_answer_from_the_others(
    client: HuggingFaceHub, hub: HubStandIn
) -> None:
    hub.fault = Fault.SLOW
    impatient = asyncio.create_task(client.profile(MODEL, None))
    patient = asyncio.create_task(client.profile(MODEL, None))
    await hub.came(1)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    hub.fault = Fault.NONE
    assert (await patient).repo_id == "acme/model"
    assert impatient.cancelled()
    assert len(hub.requests) == 1


async def test_only_so_many_are_kept_the_least_used_goes_first(time: Time) -> None:
    asked: list[str] = []
    flights: Flights[str] = Flights(time, ttl=60, size=2)

    async def get(key: str) -> str:
        async def fetch() -> str:
            asked.append(key)
            return key.upper()

        return await flights.get(key, fetch)

    assert [await get(key) for key in "abaca"] == list("ABACA")
    assert "".join(asked) == "abc", "a was used last when c pushed b out"
    assert await get("b") == "B"
    assert "".join(asked) == "abcb"
