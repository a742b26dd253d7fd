"""What an owner sees and does with webhooks, and what everybody else does not."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from moorage.adapters.secrets import KeyRing
from moorage.domain.delivery import Delivery, DeliveryState, Receiver, receiver_id
from moorage.domain.identity import Principal, Role
from moorage.errors import Clash, Forbidden, Invalid, NotFound, Problem, Unavailable
from moorage.ports.store import DeliveryFilter, Insert
from moorage.services.webhooks import Webhooks

OWNER = Principal("usr_1", "org_1", Role.OWNER)
STRANGER = Principal("usr_9", "org_9", Role.OWNER)
URL = "https://hooks.example/x"
World = Any  # the class lives in conftest, which cannot be imported from here


@pytest.fixture
def woken() -> list[int]:
    return []


@pytest.fixture
def webhooks(world: World, woken: list[int]) -> Webhooks:
    return Webhooks(world.store, world.ring, world.clock, world.new_id, lambda: woken.append(1))


async def put(world: World, state: DeliveryState, organization: str = "org_1") -> Delivery:
    now = world.clock.now()
    row = Delivery(
        world.new_id("msg"),
        organization,
        "dep_1",
        "deployment.ready",
        URL,
        "{}",
        now,
        state=state,
        failures=3,
    )
    await world.store.commit([Insert(row)])
    return row


async def test_secret_is_made_once_even_in_a_race(webhooks: Webhooks) -> None:
    shown = await asyncio.gather(*(webhooks.secret(OWNER) for _ in range(5)))
    assert len({secret.current for secret in shown}) == 1
    assert shown[0].current.startswith("whsec_")
    assert shown[0].current not in repr(shown[0])
    assert (await webhooks.secret(STRANGER)).current != shown[0].current


async def test_rotations_that_race_all_take_effect_in_some_order(webhooks: Webhooks, world: World) -> None:
    await webhooks.secret(OWNER)
    shown = await asyncio.gather(*(webhooks.rotate(OWNER) for _ in range(3)))
    last = await webhooks.secret(OWNER)
    assert last.current in {secret.current for secret in shown}
    assert last.previous in {secret.current for secret in shown} - {last.current}
    events = await world.store.events("org_1", None, 10)
    assert [event.type for event in events] == ["webhook_secret.rotated"] * 3


async def test_previous_secret_is_shown_with_its_end(webhooks: Webhooks, world: World) -> None:
    await webhooks.secret(OWNER)
    shown = await webhooks.rotate(OWNER)
    assert shown.previous_expires_at == shown.created_at + timedelta(hours=24)
    world.clock.offset = timedelta(hours=24, seconds=1)
    assert (await webhooks.secret(OWNER)).previous is None


async def test_secret_under_a_lost_key_says_what_to_do(webhooks: Webhooks, world: World) -> None:
    await webhooks.secret(OWNER)
    later = Webhooks(world.store, KeyRing([("k2", bytes(32))]), world.clock, world.new_id, lambda: None)
    with pytest.raises(Unavailable) as refused:
        await later.secret(OWNER)
    assert refused.value.code == "webhook_secret_unreadable"
    assert (await later.rotate(OWNER)).previous is None
    await later.secret(OWNER)


@pytest.mark.parametrize("state", [DeliveryState.DELIVERED, DeliveryState.EXHAUSTED, DeliveryState.DISABLED])
async def test_resend_makes_it_due_at_once_with_a_fresh_schedule(
    webhooks: Webhooks, world: World, woken: list[int], state: DeliveryState
) -> None:
    row = await put(world, state)
    id_ = receiver_id("org_1", URL)
    await world.store.commit([Insert(Receiver(id_, "org_1", URL, world.clock.now()))])
    after = await webhooks.resend(OWNER, row.id)
    stored = await world.stored(row)
    assert (stored.state, stored.failures, stored.due_at) == (DeliveryState.PENDING, 0, after.due_at)
    assert (await world.store.receiver(id_)).disabled_at is None
    assert woken == [1]
    [event] = await world.store.events("dep_1", None, 10)
    assert (event.type, event.actor) == ("webhook.resent", "usr_1")


async def test_resend_of_what_is_on_its_way_clashes(
    webhooks: Webhooks, world: World, woken: list[int]
) -> None:
    row = await put(world, DeliveryState.PENDING)
    with pytest.raises(Clash) as refused:
        await webhooks.resend(OWNER, row.id)
    assert refused.value.code == "delivery_pending"
    assert woken == []


async def test_two_resends_at_once_are_one(webhooks: Webhooks, world: World) -> None:
    row = await put(world, DeliveryState.DELIVERED)
    results = await asyncio.gather(
        *(webhooks.resend(OWNER, row.id) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Clash", "Delivery"]


async def test_another_organization_sees_and_resends_nothing(webhooks: Webhooks, world: World) -> None:
    row = await put(world, DeliveryState.DELIVERED)
    assert (await webhooks.deliveries(STRANGER, DeliveryFilter(), None, 10)).items == ()
    for attempt in (webhooks.resend(STRANGER, row.id), webhooks.delivery(STRANGER, row.id)):
        with pytest.raises(NotFound):
            await attempt


async def test_list_pages_and_filters(webhooks: Webhooks, world: World) -> None:
    rows = [await put(world, DeliveryState.DELIVERED) for _ in range(5)]
    failed = await put(world, DeliveryState.EXHAUSTED)
    seen: list[str] = []
    cursor = None
    while True:
        page = await webhooks.deliveries(OWNER, DeliveryFilter(state="delivered"), cursor, 2)
        seen += [row.id for row in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(seen) == sorted(row.id for row in rows)
    assert failed.id not in seen


@pytest.mark.parametrize(
    ("where", "cursor", "limit", "field"),
    [
        (DeliveryFilter(state="lost"), None, 10, "query.state"),
        (DeliveryFilter(), None, 0, "query.limit"),
        (DeliveryFilter(), None, 101, "query.limit"),
        (DeliveryFilter(), "%%%", 10, "query.cursor"),
    ],
)
async def test_bad_questions_name_the_field(
    webhooks: Webhooks, world: World, where: DeliveryFilter, cursor: str | None, limit: int, field: str
) -> None:
    await put(world, DeliveryState.DELIVERED)
    with pytest.raises(Invalid) as refused:
        await webhooks.deliveries(OWNER, where, cursor, limit)
    assert [error.field for error in refused.value.errors] == [field]


@pytest.mark.parametrize("role", [Role.DEPLOYER, Role.VIEWER, Role.INVOKER])
async def test_roles_without_the_permission_are_refused(webhooks: Webhooks, role: Role, world: World) -> None:
    principal = Principal("p", "org_1", role)
    row = await put(world, DeliveryState.DELIVERED)
    for attempt in (
        webhooks.secret(principal),
        webhooks.rotate(principal),
        webhooks.resend(principal, row.id),
    ):
        with pytest.raises(Forbidden):
            await attempt
    if role is Role.INVOKER:
        with pytest.raises(Problem):
            await webhooks.deliveries(principal, DeliveryFilter(), None, 10)
    else:
        page = await webhooks.deliveries(principal, DeliveryFilter(), None, 10)
        assert [found.id for found in page.items] == [row.id]
