"""What every store must do about leases, wakes and news: a part of the store's contract.

Apart from `store_contract` for its length alone; `StoreContract` there is the class to subclass.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from moorage.domain.delivery import Receiver
from moorage.domain.deployment import Deployment, Phase
from moorage.errors import StaleWrite
from moorage.ports.store import ABSENCE, Insert, Store, Update
from moorage.testing.store_rows import (
    NOW,
    after,
    at_home,
    delivery,
    deployment,
    in_phase,
    lease,
    read_deployment,
)


async def renewed(store: Store, token: str) -> bool:
    """Whether the one deployment is still held under the token."""
    id_ = deployment().id
    return await store.renew("deployments", {id_: token}, after(60)) == {id_}


class LeaseContract:
    @pytest.fixture
    async def store(self) -> Store:
        """Abstract. An empty store, closed after the test."""
        pytest.fail("the suite needs a fixture `store` of yours")

    @pytest.fixture
    async def second(self, store: Store) -> Store:
        """Abstract. Another store on the data of `store`, as another process would open it."""
        pytest.fail("the suite needs a fixture `second` of yours")

    # -- claims

    async def test_a_claim_takes_what_is_due_longest_due_first(self, store: Store) -> None:
        never = replace(deployment(5), due_at=None)
        await store.commit([Insert(row) for row in (deployment(3), deployment(1), deployment(2), never)])
        assert await store.claim_deployments(lease("t0"), NOW, 10) == []
        claimed = await store.claim_deployments(lease("t1"), after(3), 2)
        assert list(claimed) == [replace(deployment(n), version=1) for n in (1, 2)]
        assert [row.id for row in await store.claim_deployments(lease("t2"), after(3), 9)] == ["dep_0003"]
        assert await store.claim_deployments(lease("t3"), after(3), 9) == []

    async def test_deliveries_are_claimed_alike(self, store: Store) -> None:
        await store.commit([Insert(delivery(2)), Insert(delivery(1)), Insert(deployment(1))])
        claimed = await store.claim_deliveries(lease("t1"), after(2), 10)
        assert list(claimed) == [replace(delivery(n), version=1) for n in (1, 2)]
        assert await store.claim_deliveries(lease("t2"), after(2), 10) == []
        done = replace(claimed[0], due_at=None)
        await store.commit([Update(done, lease="t1", release=True)])
        assert await store.delivery("msg_0001", "org_a") == replace(done, version=2)

    async def test_claims_at_once_never_overlap(self, store: Store, second: Store) -> None:
        await store.commit([Insert(deployment(n)) for n in range(60)])
        claims = await asyncio.gather(
            *([store, second][n % 2].claim_deployments(lease(f"t{n}", 90), after(60), 5) for n in range(20))
        )
        ids = [row.id for claim in claims for row in claim]
        assert sorted(ids) == [f"dep_{n:04d}" for n in range(60)]

    async def test_a_lease_that_ran_out_is_free(self, store: Store) -> None:
        await store.commit([Insert(deployment())])
        assert len(await store.claim_deployments(lease("t1", 30), after(2), 1)) == 1
        assert await store.claim_deployments(lease("t2", 90), after(29.999999), 1) == []
        assert len(await store.claim_deployments(lease("t2", 90), after(30), 1)) == 1

    # -- homes

    async def test_what_is_at_home_elsewhere_is_left_to_its_machine(self, store: Store) -> None:
        rows = at_home(deployment(1), "here"), at_home(deployment(2), "there"), deployment(3)
        await store.commit([Insert(row) for row in rows])
        claimed = await store.claim_deployments(lease("t1"), after(3), 9, "here")
        assert [row.id for row in claimed] == ["dep_0001", "dep_0003"]
        assert claimed[0] == replace(rows[0], version=1)
        assert await store.claim_deployments(lease("t2"), after(3), 9, "somewhere") == []
        assert await store.claim_deployments(lease("t2"), after(3), 9) == [], "no machine is a stranger"
        assert len(await store.claim_deployments(lease("t3"), after(3), 9, "there")) == 1

    async def test_what_its_machine_leaves_lying_others_may_claim(self, store: Store) -> None:
        await store.commit([Insert(at_home(deployment(1), "there"))])
        overdue = after(1) + ABSENCE
        early = overdue - timedelta(microseconds=1)
        assert await store.claim_deployments(lease("t1", 999), early, 9, "here") == []
        assert len(await store.claim_deployments(lease("t1", 999), overdue, 9, "here")) == 1
        assert await store.claim_deployments(lease("t2", 999), overdue, 9, "there") == [], "it is held now"

    async def test_the_home_is_that_of_the_present_attempt(self, store: Store) -> None:
        row = at_home(deployment(1), "there")
        await store.commit([Insert(row)])
        row = replace(row, version=1)
        await store.commit([Update(replace(row, status=replace(row.status, attempt=None)))])
        [free] = await store.claim_deployments(lease("t1"), after(1), 9, "here")
        await store.commit([Update(at_home(free, "there"), lease="t1", release=True)])
        assert await store.claim_deployments(lease("t2"), after(1), 9, "here") == []
        assert len(await store.claim_deployments(lease("t2"), after(1), 9, "there")) == 1

    async def test_next_due_minds_the_home(self, store: Store) -> None:
        await store.commit([Insert(at_home(deployment(1), "there")), Insert(deployment(50))])
        assert await store.next_due("deployments", NOW, "there") == after(1)
        assert await store.next_due("deployments", NOW, "here") == after(50)
        await store.claim_deployments(lease("t1", 500), after(50), 9, "nowhere")  # the one without a home
        assert await store.next_due("deployments", NOW, "here") == after(1) + ABSENCE
        assert await store.next_due("deployments", NOW) == after(1) + ABSENCE
        await store.claim_deployments(lease("t2", 300), after(50), 9, "there")
        assert await store.next_due("deployments", NOW, "here") == after(300)
        await store.wake(["dep_0001"], after(400))
        assert await store.next_due("deployments", after(400), "there") == after(400)

    # -- fencing

    async def test_a_write_under_a_lost_lease_is_refused(self, store: Store, second: Store) -> None:
        await store.commit([Insert(deployment())])
        [mine] = await store.claim_deployments(lease("mine", 10), after(1), 1)
        [theirs] = await second.claim_deployments(lease("theirs", 60), after(11), 1)
        with pytest.raises(StaleWrite):
            await store.commit([Update(in_phase(mine, Phase.FAILED), lease="mine")])
        await second.commit([Update(in_phase(theirs, Phase.UPDATING), lease="theirs")])
        assert (await read_deployment(store)).phase is Phase.UPDATING

    async def test_a_lease_that_ran_out_still_writes_if_nobody_took_it(self, store: Store) -> None:
        await store.commit([Insert(deployment())])
        [row] = await store.claim_deployments(lease("t1", 2), after(1), 1)
        await store.commit([Update(row, lease="t1")])
        assert (await read_deployment(store)).version == 2

    async def test_a_lease_does_not_replace_the_version(self, store: Store) -> None:
        await store.commit([Insert(deployment())])
        [row] = await store.claim_deployments(lease("t1"), after(1), 1)
        await store.commit([Update(replace(row, deleted_at=NOW))])  # its owner, who needs no lease
        with pytest.raises(StaleWrite):
            await store.commit([Update(row, lease="t1")])
        assert (await read_deployment(store)).deleted_at == NOW

    async def test_a_write_without_a_lease_leaves_the_lease(self, store: Store) -> None:
        await store.commit([Insert(deployment())])
        [row] = await store.claim_deployments(lease("t1"), after(1), 1)
        await store.commit([Update(replace(row, deleted_at=NOW))])
        assert await store.claim_deployments(lease("t2"), after(2), 1) == []
        assert await renewed(store, "t1")

    async def test_release_ends_the_lease(self, store: Store) -> None:
        await store.commit([Insert(deployment())])
        [row] = await store.claim_deployments(lease("t1"), after(1), 1)
        await store.commit([Update(replace(row, due_at=after(4)), lease="t1")])
        assert await store.claim_deployments(lease("t2"), after(5), 1) == []
        await store.commit([Update(await read_deployment(store), lease="t1", release=True)])
        assert not await renewed(store, "t1")
        [again] = await store.claim_deployments(lease("t2"), after(5), 1)
        assert again.version == 3

    async def test_a_write_that_is_not_held_needs_no_token(self, store: Store) -> None:
        await store.commit([Insert(deployment())])
        with pytest.raises(StaleWrite):
            await store.commit([Update(await read_deployment(store), lease="t1")])

    async def test_what_cannot_be_leased_says_so(self, store: Store) -> None:
        receiver = Receiver("org_a https://a", "org_a", "https://a", None)
        await store.commit([Insert(receiver)])
        with pytest.raises(ValueError, match="receiver"):
            await store.commit([Update(replace(receiver, version=1), lease="t1")])

    # -- renewing

    async def test_renewed_leases_hold_longer(self, store: Store) -> None:
        await store.commit([Insert(deployment(1)), Insert(deployment(2)), Insert(delivery(1))])
        await store.claim_deployments(lease("t1", 10), after(2), 2)
        await store.claim_deliveries(lease("t2", 10), after(1), 1)
        held = {"dep_0001": "t1", "dep_0002": "another", "msg_0001": "t2", "dep_unknown": "t1"}
        assert await store.renew("deployments", held, after(50)) == {"dep_0001"}
        assert await store.renew("deliveries", held, after(50)) == {"msg_0001"}
        assert [row.id for row in await store.claim_deployments(lease("t3", 90), after(49), 9)] == [
            "dep_0002"
        ]
        assert await store.claim_deliveries(lease("t3", 90), after(49), 9) == []
        assert len(await store.claim_deployments(lease("t4", 90), after(50), 9)) == 1

    async def test_a_lease_is_ended_by_renewing_it_until_now(self, store: Store) -> None:
        held = await self.claimed(store)
        assert await store.renew("deployments", {held.id: "t1"}, after(2)) == {held.id}
        assert len(await store.claim_deployments(lease("t2"), after(2), 1)) == 1

    async def test_a_lease_that_was_taken_is_not_renewed(self, store: Store) -> None:
        await store.commit([Insert(deployment())])
        await store.claim_deployments(lease("t1", 10), after(1), 1)
        await store.claim_deployments(lease("t2", 60), after(20), 1)
        assert not await renewed(store, "t1")
        assert await store.renew("deployments", {}, after(99)) == frozenset()

    async def test_a_duty_is_one_process_at_a_time(self, store: Store, second: Store) -> None:
        claims = await asyncio.gather(
            *(s.claim_duty("sweep", lease(f"t{n}", 10), NOW) for n in range(5) for s in (store, second))
        )
        assert claims.count(True) == 1
        assert await store.claim_duty("other", lease("t9", 10), NOW)
        assert not await second.claim_duty("sweep", lease("t8", 20), after(9))
        assert await second.claim_duty("sweep", lease("t8", 20), after(10))
        assert not await store.claim_duty("sweep", lease("t9", 30), after(11))

    # -- waking

    async def test_wake_makes_due_without_a_change(self, store: Store) -> None:
        late, never = replace(deployment(1), due_at=after(900)), replace(deployment(2), due_at=None)
        await store.commit([Insert(late), Insert(never), Insert(replace(deployment(3), due_at=NOW))])
        await store.wake(["dep_0001", "dep_0002", "dep_0003", "dep_unknown"], after(5))
        claimed = await store.claim_deployments(lease("t1"), after(5), 10)
        # One that was due before keeps its place.
        assert [row.due_at for row in claimed] == [NOW, after(5), after(5)]
        assert {row.version for row in claimed} == {1}

    async def test_a_wake_outlives_the_holder_that_did_not_see_it(self, store: Store) -> None:
        held = await self.claimed(store)
        await store.wake([held.id], after(2))
        await store.commit([Update(replace(held, due_at=after(900)), lease="t1", release=True)])
        [again] = await store.claim_deployments(lease("t2"), after(2), 1)
        assert again.due_at == after(2)
        # Whoever claims after the wake has seen what it was about, and decides anew.
        await store.commit([Update(replace(again, due_at=after(900)), lease="t2", release=True)])
        assert await store.next_due("deployments", after(3)) == after(900)

    async def test_a_wake_leaves_the_lease(self, store: Store) -> None:
        held = await self.claimed(store)
        await store.wake([held.id], after(2))
        assert await store.claim_deployments(lease("t2"), after(3), 1) == []

    @staticmethod
    async def claimed(store: Store) -> Deployment:
        await store.commit([Insert(deployment())])
        [row] = await store.claim_deployments(lease("t1"), after(1), 1)
        return row

    # -- what is due next

    async def test_next_due_is_the_first_of_its_kind(self, store: Store) -> None:
        assert await store.next_due("deployments", NOW) is None
        await store.commit([Insert(replace(deployment(1), due_at=None)), Insert(delivery(5))])
        assert await store.next_due("deployments", NOW) is None
        assert await store.next_due("deliveries", NOW) == after(5)
        await store.commit([Insert(deployment(20)), Insert(deployment(10))])
        assert await store.next_due("deployments", NOW) == after(10)
        assert await store.next_due("deployments", after(12)) == after(12)

    async def test_next_due_of_what_is_held_is_the_end_of_its_lease(self, store: Store) -> None:
        await self.claimed(store)
        assert await store.next_due("deployments", after(2)) == after(30)
        await store.commit([Insert(deployment(40))])
        assert await store.next_due("deployments", after(2)) == after(30)
        row = await read_deployment(store)
        await store.commit([Update(replace(row, due_at=after(60)), lease="t1")])
        assert await store.next_due("deployments", after(2)) == after(40)

    # -- news

    async def test_another_process_write_is_told(self, store: Store, second: Store) -> None:
        async with aclosing(store.changes()) as changes:  # type: ignore[type-var]  # a generator, as all are
            news = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.01)
            await second.commit([Insert(deployment())])
            await asyncio.wait_for(news, 5)
            assert await store.deployment("dep_0001") is not None

    async def test_own_writes_are_not_told(self, store: Store) -> None:
        async with aclosing(store.changes()) as changes:  # type: ignore[type-var]  # as above
            news = asyncio.ensure_future(anext(changes))
            for number in range(5):
                await store.commit([Insert(deployment(number))])
                await store.claim_deployments(lease("t"), after(9), 1)
                await asyncio.sleep(0.1)
            assert not news.done()
            news.cancel()
            await asyncio.gather(news, return_exceptions=True)
