"""However many ask whether the service is ready, the store is asked once a second at most."""

from __future__ import annotations

import asyncio

import pytest

from moorage.domain.identity import IdempotencyRecord
from moorage.errors import StoreUnavailable
from moorage.services.readiness import KEPT_SECONDS, Check, Readiness
from moorage.testing.store import MemoryStore


class Slow(MemoryStore):
    """Counts what it is asked, and answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.error: Exception | None = None
        self.let = asyncio.Event()
        self.let.set()

    async def idempotency_record(self, record_id: str) -> IdempotencyRecord | None:
        self.asked += 1
        await self.let.wait()
        if self.error is not None:
            raise self.error
        return await super().idempotency_record(record_id)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> Slow:
    return Slow()


async def test_an_answer_is_good_for_a_second(store: Slow) -> None:
    clock = Clock()
    readiness = Readiness(store, lambda: None, monotonic=clock)
    for _ in range(50):
        assert await readiness.checks() == (Check("store", None), Check("engine", None))
    assert store.asked == 1
    store.error = StoreUnavailable("gone")
    assert (await readiness.checks())[0].trouble is None  # not yet known
    clock.now += KEPT_SECONDS + 0.1
    assert (await readiness.checks())[0].trouble == "It cannot be reached."
    assert store.asked == 2
    store.error = None
    clock.now += KEPT_SECONDS + 0.1
    assert (await readiness.checks())[0].trouble is None


async def test_many_at_once_put_one_question(store: Slow) -> None:
    store.let.clear()
    readiness = Readiness(store, lambda: None, patience=5)
    asking = [asyncio.create_task(readiness.checks()) for _ in range(100)]
    await asyncio.sleep(0.05)
    store.let.set()
    assert {checks[0].trouble for checks in await asyncio.gather(*asking)} == {None}
    assert store.asked == 1


async def test_a_question_without_an_answer_is_not_put_again(store: Slow) -> None:
    store.let.clear()
    clock = Clock()
    readiness = Readiness(store, lambda: "It stands still.", patience=0.02, monotonic=clock)
    for _ in range(5):
        store_check, engine_check = await readiness.checks()
        assert "has not answered" in str(store_check.trouble)
        assert engine_check.trouble == "It stands still."
        clock.now += 10
    assert store.asked == 1
    store.let.set()
    await asyncio.sleep(0)
    assert (await readiness.checks())[0].trouble is None
    store.let.clear()
    clock.now += 10
    await readiness.checks()
    await readiness.aclose()


async def test_an_error_that_should_not_be_is_one_line_in_the_log_and_no_detail(store: Slow) -> None:
    store.error = RuntimeError("password=hunter2hunter2")
    (check, _) = await Readiness(store, lambda: None).checks()
    assert check.trouble == "It does not answer as it should; the log has the cause."
