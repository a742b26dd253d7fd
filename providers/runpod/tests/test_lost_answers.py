"""RunPod acts and does not say so, says nonsense, or shows yesterday's list: nothing is doubled or left."""

from __future__ import annotations

import asyncio

import pytest

from moorage.domain.deployment import Handle
from moorage.errors import ProviderError, Rejected, Retry
from moorage.ports.provider import Absent
from moorage.testing.provider_contract import until_absent
from moorage_runpod.serverless import RunPodProvider
from moorage_runpod.testing import Kind

from .conftest import CREDENTIALS, House
from .looking import until_ready
from .plans import plan

CREATE, LIST = "POST /v2/serverless", "GET /v2/serverless"
DELETE, LOOK, PATCH = "DELETE /v2/serverless/{id}", "GET /v2/serverless/{id}", "PATCH /v2/serverless/{id}"

ACTED = [Kind.LOST_ANSWER, Kind.TRUNCATED]
NOT_ACTED = [Kind.LOST_REQUEST, Kind.HTML, Kind.BAD_GATEWAY, Kind.UNAVAILABLE]


async def create(provider: RunPodProvider, name: str) -> Handle:
    """As the engine: again and again as long as it is told to try again."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await provider.create(plan(), name, CREDENTIALS)
            except Retry as error:
                await asyncio.sleep(min(error.after, 0.05))


@pytest.mark.parametrize("kind", ACTED)
async def test_a_create_that_acted_is_adopted_at_once(house: House, name: str, kind: Kind) -> None:
    house.fake.faults.arm(CREATE, kind)
    handle = await house.provider().create(plan(), name, CREDENTIALS)
    assert house.names() == [name]
    assert handle.ref == {"id": house.fake.endpoints[0].id}
    assert house.fake.cloud.creates == 1


@pytest.mark.parametrize("kind", NOT_ACTED)
async def test_a_create_that_did_not_act_is_repeated_when_that_is_certain(
    house: House, name: str, kind: Kind
) -> None:
    house.fake.faults.arm(CREATE, kind)
    provider = house.provider()
    with pytest.raises(Retry):
        await provider.create(plan(), name, CREDENTIALS)
    with pytest.raises(Retry, match="did not tell whether it created"):
        await provider.create(plan(), name, CREDENTIALS)
    assert len(house.fake.sent(CREATE)) == 1
    await create(provider, name)
    assert house.names() == [name]


@pytest.mark.parametrize("kind", ACTED)
async def test_a_create_that_the_list_does_not_show_yet_is_not_repeated(
    house: House, name: str, kind: Kind
) -> None:
    house.fake.faults.list_lag_seconds = 0.2
    house.fake.faults.arm(CREATE, kind)
    provider = house.provider(LIST_LAG_SECONDS="2")
    handle = await create(provider, name)
    assert house.fake.cloud.creates == 1
    assert handle.ref["id"] == house.fake.endpoints[0].id


@pytest.mark.parametrize("kind", ACTED)
async def test_deleting_waits_for_what_may_still_come_to_light(house: House, name: str, kind: Kind) -> None:
    """The engine gave up between a create without an answer and its handle."""
    house.fake.faults.list_lag_seconds = 0.2
    house.fake.faults.arm(CREATE, kind)
    provider = house.provider(LIST_LAG_SECONDS="1")
    with pytest.raises(Retry):
        await provider.create(plan(), name, CREDENTIALS)
    with pytest.raises(Retry):
        await provider.find(name, CREDENTIALS)
    await until_absent(provider, Handle("runpod", name), CREDENTIALS, 10)
    assert house.names() == []


async def test_a_create_that_was_cancelled_is_looked_for(house: House, name: str) -> None:
    house.fake.faults.list_lag_seconds = 0.1
    house.fake.faults.arm(CREATE, Kind.SLOW, seconds=0.3)
    provider = house.provider(LIST_LAG_SECONDS="1")
    creating = asyncio.create_task(provider.create(plan(), name, CREDENTIALS))
    await house.fake.came(lambda: house.fake.sent(CREATE))
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    with pytest.raises(Retry):
        await provider.create(plan(), name, CREDENTIALS)
    await create(provider, name)
    assert house.fake.cloud.creates <= 1
    assert len(house.names()) == 1


@pytest.mark.parametrize("kind", [*ACTED, *NOT_ACTED])
async def test_deletions_are_believed_when_it_is_gone(house: House, name: str, kind: Kind) -> None:
    provider = house.provider()
    handle = await provider.create(plan(), name, CREDENTIALS)
    house.fake.faults.arm(DELETE, kind)
    await until_absent(provider, handle, CREDENTIALS, 10)
    assert house.names() == []
    assert await provider.delete(handle, CREDENTIALS) == Absent()


@pytest.mark.parametrize("kind", [*ACTED, *NOT_ACTED])
async def test_changes_are_repeated_until_they_are_there(house: House, name: str, kind: Kind) -> None:
    provider = house.provider()
    handle = await provider.create(plan(), name, CREDENTIALS)
    house.fake.faults.arm(PATCH, kind)
    with pytest.raises(Retry):
        await provider.apply(handle, plan(SHAPE="square"), CREDENTIALS)
    await provider.apply(handle, plan(SHAPE="square"), CREDENTIALS)
    [endpoint] = house.fake.endpoints
    assert endpoint.spec.env["SHAPE"] == "square"
    assert endpoint.version == 2


@pytest.mark.parametrize("kind", [*ACTED, *NOT_ACTED])
async def test_a_lost_warm_up_is_not_sent_twice(house: House, name: str, kind: Kind) -> None:
    provider = house.provider()
    handle = await provider.create(plan(), name, CREDENTIALS)
    house.fake.faults.arm("POST /v2/{endpoint}/run", kind)
    with pytest.raises(Retry):
        await provider.observe(handle, CREDENTIALS)
    await until_ready(provider, handle)
    assert house.fake.endpoints[0].queue.counts()["completed"] == 1


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    "route", [LIST, LOOK, "GET /v2/serverless/{id}/workers", "GET /v2/{endpoint}/health"]
)
async def test_no_answer_is_never_news(house: House, name: str, kind: Kind, route: str) -> None:
    """Whatever goes wrong on the way, an endpoint is neither gone nor ready because of it."""
    provider = house.provider()
    handle = await provider.create(plan(), name, CREDENTIALS)
    house.fake.faults.arm(route, kind, times=2, seconds=0.01)
    if route == LIST:
        for _ in range(2):
            try:
                assert await provider.find(name, CREDENTIALS) == handle
            except ProviderError as error:
                assert isinstance(error, Retry)  # noqa: PT017  # it may also succeed
    await until_ready(provider, handle)


async def test_a_job_api_that_does_not_know_it_yet_is_no_end(house: House, name: str) -> None:
    provider = house.provider()
    handle = await provider.create(plan(), name, CREDENTIALS)
    api = provider._api(CREDENTIALS)
    endpoint, _ = await api.endpoint(handle.ref["id"])
    assert endpoint.request_urls is not None
    unknown = {field: f"{api.base}/v2/nobody/{field}" for field in ("run", "health")}
    urls = endpoint.request_urls.model_copy(update=unknown)
    for call in (api.health, lambda e: api.run(e, {"input": {"a": 1}})):
        with pytest.raises(Retry, match="does not know"):
            await call(endpoint.model_copy(update={"request_urls": urls}))


async def test_a_template_that_is_not_there_is_told(house: House, name: str) -> None:
    with pytest.raises(Rejected) as raised:
        await house.provider(TEMPLATE_ID="t404").create(plan(), name, CREDENTIALS)
    assert "MOORAGE_RUNPOD_TEMPLATE_ID" in (raised.value.advice or "")


class TestSameName:
    async def test_the_oldest_stays(self, house: House, name: str) -> None:
        provider, fake = house.provider(), house.fake
        first = await provider.create(plan(), name, CREDENTIALS)
        [endpoint] = fake.endpoints
        for _ in range(2):
            fake.cloud.create(endpoint.account, endpoint.spec)
        assert await provider.find(name, CREDENTIALS) == first
        assert await provider.create(plan(), name, CREDENTIALS) == first
        assert [e.id for e in fake.endpoints] == [first.ref["id"]]

    async def test_all_of_them_are_deleted(self, house: House, name: str) -> None:
        provider, fake = house.provider(), house.fake
        handle = await provider.create(plan(), name, CREDENTIALS)
        [endpoint] = fake.endpoints
        fake.cloud.create(endpoint.account, endpoint.spec)
        await until_absent(provider, handle, CREDENTIALS, 10)
        assert house.names() == []

    async def test_two_processes_at_once_whose_answers_get_lost(self, house: House, name: str) -> None:
        house.fake.faults.arm(CREATE, Kind.LOST_ANSWER, times=2)
        handles = await asyncio.gather(*(create(house.provider(), name) for _ in range(3)))
        assert house.names() == [name]
        assert {h.ref["id"] for h in handles} == {house.fake.endpoints[0].id}

    async def test_what_another_installation_made_is_left_alone(self, house: House, name: str) -> None:
        theirs = await house.provider("inst_other").create(plan(), name, CREDENTIALS)
        ours = house.provider()
        assert await ours.find(name, CREDENTIALS) is None
        assert [h async for h in ours.owned(CREDENTIALS)] == []
        mine = await ours.create(plan(), name, CREDENTIALS)
        assert mine != theirs
        await until_absent(ours, mine, CREDENTIALS, 10)
        assert [e.id for e in house.fake.endpoints] == [theirs.ref["id"]]

    async def test_what_somebody_made_by_hand_is_not_owned(self, house: House) -> None:
        provider = house.provider()
        await provider.create(plan(), "mine-by-hand", CREDENTIALS)
        assert [h async for h in provider.owned(CREDENTIALS)] == []
