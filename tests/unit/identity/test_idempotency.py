"""A POST sent again: replayed, told apart, raced, and forgotten after a day."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from moorage.adapters.secrets import KeyRing
from moorage.domain.identity import Organization
from moorage.errors import AlreadyExists, Clash, Invalid
from moorage.ports.outside import Clock
from moorage.ports.store import Insert, Write
from moorage.services.idempotency import Answer, fingerprint, once
from moorage.testing.store import MemoryStore

ORG = "org_1"


class Posts:
    """A route that makes an organization of a given id each time it runs."""

    def __init__(self, store: MemoryStore, ring: KeyRing, clock: Clock) -> None:
        self.store, self.ring, self.clock = store, ring, clock
        self.runs = 0

    async def post(
        self, key: str | None, name: str = "a", print_: str = "same", meet: asyncio.Barrier | None = None
    ) -> Answer:
        async def make() -> tuple[Sequence[Write], int, bytes]:
            self.runs += 1
            if meet is not None:
                await meet.wait()
            row = Organization(f"{name}{self.runs}", name, self.clock.now())
            return [Insert(row)], 201, f"shown once: {row.id}".encode()

        return await once(self.store, self.ring, self.clock, ORG, key, print_, make)

    async def made(self) -> list[str]:
        ids = [f"a{n}" for n in range(1, self.runs + 1)]
        return [id_ for id_ in ids if await self.store.organization(id_)]


@pytest.fixture
def posts(store: MemoryStore, ring: KeyRing, clock: Clock) -> Posts:
    return Posts(store, ring, clock)


async def test_without_a_key_every_post_happens(posts: Posts) -> None:
    assert not (await posts.post(None)).replayed
    assert not (await posts.post(None)).replayed
    assert await posts.made() == ["a1", "a2"]


async def test_with_a_key_it_happens_once_and_is_answered_alike(posts: Posts) -> None:
    first = await posts.post("k")
    again = await posts.post("k")
    assert first == Answer(201, b"shown once: a1")
    assert again == Answer(201, b"shown once: a1", replayed=True)
    assert await posts.made() == ["a1"]


async def test_stored_answer_is_sealed(posts: Posts) -> None:
    await posts.post("k")
    record = await posts.store.idempotency_record(f"{ORG} k")
    assert record is not None
    assert "shown once" not in record.sealed


async def test_key_with_another_request_clashes(posts: Posts) -> None:
    await posts.post("k")
    with pytest.raises(Clash) as refused:
        await posts.post("k", print_="other")
    assert refused.value.code == "idempotency_key_reused"
    assert await posts.made() == ["a1"]


async def test_racing_twins_are_one(posts: Posts) -> None:
    meet = asyncio.Barrier(5)
    answers = await asyncio.gather(*(posts.post("k", meet=meet) for _ in range(5)))
    assert posts.runs == 5
    assert len(await posts.made()) == 1
    assert len({answer.body for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False, True, True, True, True]


async def test_twin_whose_write_makes_ours_impossible_is_replayed(posts: Posts, clock: Clock) -> None:
    """The second passes the first look, and then finds the name taken, by its own twin."""

    async def finds_it_taken() -> tuple[Sequence[Write], int, bytes]:
        await posts.post("k")
        raise Clash("the name is taken", code="name_taken")

    answer = await once(posts.store, posts.ring, clock, ORG, "k", "same", finds_it_taken)
    assert answer == Answer(201, b"shown once: a1", replayed=True)


async def test_failure_is_told_and_not_remembered(posts: Posts, clock: Clock) -> None:

    async def taken() -> tuple[Sequence[Write], int, bytes]:
        return [Insert(Organization("x", "x", clock.now()))], 201, b""

    await posts.store.commit((await taken())[0])
    with pytest.raises(AlreadyExists):
        await once(posts.store, posts.ring, clock, ORG, "k", "same", taken)
    assert not (await posts.post("k")).replayed


async def test_record_is_forgotten_after_a_day_and_replaced(
    posts: Posts, clock: Clock, advance: Callable[..., None]
) -> None:
    await posts.post("k")
    advance(hours=23, minutes=59)
    assert (await posts.post("k")).replayed
    advance(minutes=1)
    assert await posts.post("k", print_="other") == Answer(201, b"shown once: a2")
    assert (await posts.post("k", print_="other")).replayed


async def test_racing_twins_on_an_expired_record_are_one(
    posts: Posts, clock: Clock, advance: Callable[..., None]
) -> None:
    await posts.post("k")
    advance(hours=25)
    meet = asyncio.Barrier(3)
    answers = await asyncio.gather(*(posts.post("k", meet=meet) for _ in range(3)))
    assert sorted(answer.replayed for answer in answers) == [False, True, True]
    assert len(await posts.made()) == 2


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256, "a\n"])
async def test_key_rule_names_the_header(posts: Posts, key: str) -> None:
    with pytest.raises(Invalid) as refused:
        await posts.post(key)
    assert refused.value.errors[0].field == "header.Idempotency-Key"
    assert posts.runs == 0


async def test_organizations_do_not_share_keys(posts: Posts, clock: Clock) -> None:
    await posts.post("k")

    async def make() -> tuple[Sequence[Write], int, bytes]:
        return [], 200, b"theirs"

    answer = await once(posts.store, posts.ring, clock, "org_2", "k", "same", make)
    assert answer == Answer(200, b"theirs")


def test_fingerprint_tells_parts_apart() -> None:
    assert fingerprint("a", "POST", "/x", b"") == fingerprint("a", "POST", "/x", b"")
    parts = {
        ("a", "POST", "/x", b""),
        ("b", "POST", "/x", b""),
        ("a", "POST", "/", b"x"),
        ("aP", "OST", "/x", b""),
    }
    assert len({fingerprint(*part) for part in parts}) == len(parts)
