"""What a worker makes of messages: run side by side, refused, cancelled, given back; the servers are real."""

from __future__ import annotations

import asyncio
import time

import aio_pika
import pytest
from worker_harness.queue_inside import WAIT_SECONDS, Inside, MeetingEngine, inside
from worker_harness.queue_processes import Queue
from worker_harness.stepping import SteppingEngine

from moorage_worker.queue.handling import MOST_DELIVERIES, Delivery, Verdict
from moorage_worker.queue.messages import MAX_MESSAGE_BYTES, read_message
from moorage_worker.queue.records import Outcome, Status
from moorage_worker.queue.store import JobStore


def ready_engine() -> SteppingEngine:
    engine = SteppingEngine()
    engine.let_go.set()
    return engine


async def test_so_many_jobs_are_in_work_at_once_and_no_more(queue: Queue) -> None:
    engine = MeetingEngine(3)
    async with inside(queue, engine, MOORAGE_QUEUE_CONSUMERS="3") as one:
        declared = await one.channel.declare_queue(queue.name, passive=True)
        assert declared.declaration_result.consumer_count == 3
        for number in range(9):
            await one.put({"id": f"job-{number}", "input": {"inputs": number}})
        for number in range(9):
            assert await one.output(f"job-{number}") == {"inputs": number}
        assert engine.most == 3


async def test_one_consumer_takes_one_job_and_leaves_the_rest_to_others(queue: Queue) -> None:
    engine = SteppingEngine()
    async with inside(queue, engine) as one:
        for number in range(3):
            await one.put({"id": f"job-{number}", "input": {"inputs": number}})
        await one.engine_started()
        assert await one.left() == 2
        assert engine.asked == [0]
        engine.let_go.set()
        await one.over("job-2")


TOO_LARGE = b'{"id": "large", "input": "' + b"x" * MAX_MESSAGE_BYTES + b'"}'


@pytest.mark.parametrize(
    ("body", "message_id", "status"),
    [
        (b"not JSON", "poison", 400),
        (b"[1]", "poison", 400),
        (b"\xff\xfe", "poison", 400),
        (b'{"id": "poison"}', None, 422),
        (b'{"id": "no spaces", "input": 1}', "poison", 422),
        (b'{"id": "poison", "input": {}, "policy": {"ttl": "long"}}', None, 422),
        (TOO_LARGE, "poison", 413),
    ],
)
async def test_what_cannot_be_read_fails_and_lies_with_the_dead_letters(
    queue: Queue, body: bytes, message_id: str | None, status: int
) -> None:
    async with inside(queue, ready_engine()) as one:
        await one.put(body, message_id)
        problem = await one.problem("poison")
        assert problem["status"] == status
        await one.put({"id": "after", "input": {"inputs": 1}})
        assert await one.output("after") == {"inputs": 1, "parameters": {}}
        assert await one.dead_letter() == body
        assert await one.left() == 0


async def test_a_message_that_does_not_say_whose_it_is_goes_to_the_dead_letters(queue: Queue) -> None:
    async with inside(queue, ready_engine()) as one:
        await one.put(b'{"input": 1}', "not an id")
        await one.put({"id": "after", "input": {"inputs": 1}})
        await one.over("after")
        assert await one.dead_letter() == b'{"input": 1}'


async def test_a_wrong_input_is_no_poison_and_names_the_field(queue: Queue) -> None:
    async with inside(queue, ready_engine()) as one:
        await one.put({"id": "wrong", "input": {"inputs": 1, "extra": 2}})
        problem = await one.problem("wrong")
        assert (problem["status"], problem["errors"][0]["field"]) == (422, "extra")
        await one.put(b"poison", "poison")
        assert await one.dead_letter() == b"poison", "the first one"


async def test_an_engine_that_breaks_fails_its_job(queue: Queue) -> None:
    engine = ready_engine()
    engine.failure = ValueError("no such index")
    async with inside(queue, engine) as one:
        await one.put({"id": "breaks", "input": {"inputs": 1}})
        problem = await one.problem("breaks")
        assert (problem["status"], problem["code"]) == (500, "engine_failed")
        assert problem["detail"] == "ValueError: no such index"


async def test_a_message_whose_result_is_there_is_not_run_again(queue: Queue) -> None:
    engine = ready_engine()
    async with inside(queue, engine) as one:
        message = {"id": "job", "input": {"inputs": "first"}}
        await one.put(message)
        first = await one.over("job")
        await one.put(message)
        await one.put({"id": "after", "input": {"inputs": "after"}})
        await one.over("after")
        assert engine.asked == ["first", "after"]
        assert await one.over("job") == first
        assert await one.left() == 0


async def test_the_first_result_that_is_stored_stays(queue: Queue) -> None:
    async with inside(queue, SteppingEngine()) as one:
        await one.put({"id": "job", "input": {"inputs": 1}})
        await one.engine_started()
        # Another worker, which had the job before its connection was lost, is done first.
        assert await one.store.finish("job", Outcome(Status.COMPLETED, output=b'{"outputs":"first"}'), 0)
        one.engine.let_go.set()
        await one.put({"id": "after", "input": {"inputs": 2}})
        await one.over("after")
        assert await one.output("job") == "first"
        totals, _, _ = await one.store.counts()
        assert totals["COMPLETED"] == 2


async def test_a_cancelled_run_stops_its_engine_and_the_next_job_goes_on(queue: Queue) -> None:
    async with inside(queue, SteppingEngine()) as one:
        await one.put({"id": "unwanted", "input": {"inputs": 1}})
        await one.engine_started()
        assert await one.store.cancel("unwanted") is Status.CANCELLED
        await one.engine_stopped()
        one.engine.let_go.set()
        await one.put({"id": "after", "input": {"inputs": 2}})
        await one.over("after")
        record = await one.over("unwanted")
        assert (record.status, record.output) == (Status.CANCELLED, None)
        assert await one.left() == 0


async def test_a_job_that_is_cancelled_while_it_waits_is_never_run(queue: Queue) -> None:
    engine = SteppingEngine()
    async with inside(queue, engine) as one:
        await one.put({"id": "running", "input": {"inputs": 1}})
        await one.engine_started()
        await one.store.accept("waiting", "digest")
        await one.put({"id": "waiting", "input": {"inputs": 2}})
        assert await one.store.cancel("waiting") is Status.CANCELLED
        engine.let_go.set()
        await one.put({"id": "after", "input": {"inputs": 3}})
        await one.over("after")
        assert engine.asked == [1, 3]


async def test_a_cancellation_that_nobody_heard_is_found_when_notices_come_again(queue: Queue) -> None:
    async with inside(queue, SteppingEngine()) as one:
        await one.put({"id": "unwanted", "input": {"inputs": 1}})
        await one.engine_started()
        await unheard_cancellation(one, "unwanted")
        await one.handler.look_up_cancellations()
        await one.engine_stopped()


async def unheard_cancellation(one: Inside, job: str) -> None:
    """As if the notice was lost on its way."""
    one.store.cancellations = "another channel"
    await one.store.cancel(job)


async def test_a_warm_up_is_answered_and_progress_is_seen(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, tell = asyncio.Event(), JobStore.progress

    async def progress(store: JobStore, job: str, run: str, word: bytes) -> None:
        await tell(store, job, run, word)
        told.set()

    monkeypatch.setattr(JobStore, "progress", progress)
    async with inside(queue, SteppingEngine(), MOORAGE_QUEUE_CONSUMERS="2") as one:
        await one.put({"id": "steps", "input": {"inputs": 1}})
        await one.put({"id": "warm", "input": {"moorage": "warm_up"}})
        record = await one.over("warm")
        assert record.output == b'{"ready":true,"load_seconds":1.5,"from_cache":true,"version":"v1"}'
        await asyncio.wait_for(told.wait(), WAIT_SECONDS)
        steps = await one.store.find("steps")
        assert steps is not None
        assert steps.status is Status.IN_PROGRESS
        assert steps.progress == b'{"stage":"running","percent":25.0,"what":"step 1 of 4"}'
        one.engine.let_go.set()
        assert (await one.over("steps")).progress is None


async def test_a_job_may_not_run_for_longer_than_its_policy_says(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "moorage_worker.queue.messages._POLICY", {"executionTimeout": (1, 100), "ttl": (1, 100)}
    )
    async with inside(queue, SteppingEngine()) as one:
        await one.put({"id": "long", "input": {"inputs": 1}, "policy": {"executionTimeout": 50}})
        problem = await one.problem("long")
        assert (problem["status"], problem["code"]) == (504, "job_timed_out")
        assert (await one.over("long")).status is Status.TIMED_OUT
        await one.engine_stopped()


async def test_a_job_that_waited_for_longer_than_its_ttl_is_not_begun(queue: Queue) -> None:
    engine = ready_engine()
    async with inside(queue, engine) as one:
        raw = b'{"id": "late", "input": {"inputs": 1}, "policy": {"ttl": 10000}}'
        await put_with_age(one, raw, 11.0)
        assert (await one.problem("late"))["detail"] == "the job waited for longer than its ttl"
        assert engine.asked == []


async def put_with_age(one: Inside, raw: bytes, seconds: float) -> None:
    message = aio_pika.Message(raw, timestamp=time.time() - seconds)
    await one.channel.default_exchange.publish(message, one.settings.name)


async def test_a_message_that_comes_again_and_again_is_given_up_whatever_redis_knows(queue: Queue) -> None:
    async with inside(queue, engine := ready_engine()) as one:
        message = Delivery(b'{"id": "job", "input": {"inputs": 1}}', None, None, deliveries=MOST_DELIVERIES)
        assert await one.handler.handle(message) is Verdict.DEAD
        problem = await one.problem("job")
        assert (problem["code"], engine.asked) == ("workers_lost", [])


async def test_the_last_attempt_of_a_job_has_the_worker_for_itself(queue: Queue) -> None:
    engine = SteppingEngine()
    async with inside(queue, engine, MOORAGE_QUEUE_CONSUMERS="3", MOORAGE_QUEUE_ATTEMPTS="2") as one:
        raw = b'{"id": "suspect", "input": {"inputs": "suspect"}}'
        await one.store.begin(read_message(raw, None, None), "a run that killed its worker", "worker-0")
        await one.put({"id": "before", "input": {"inputs": "before"}})
        await one.engine_started()
        suspect = asyncio.create_task(one.handler.handle(Delivery(raw, None, None, deliveries=1)))
        await settle()
        await one.put({"id": "after", "input": {"inputs": "after"}})
        engine.let_go.set()
        assert await suspect is Verdict.DONE
        await one.over("after")
        assert engine.asked == ["before", "suspect", "after"]
        assert await one.output("suspect") == {"inputs": "suspect", "parameters": {}}


async def settle() -> None:
    """Lets Redis answer what was asked of it."""
    await asyncio.sleep(0.1)


async def test_stopping_finishes_what_is_in_hand_and_takes_nothing_more(queue: Queue) -> None:
    engine = SteppingEngine()
    async with inside(queue, engine, MOORAGE_QUEUE_GRACE_SECONDS="60") as one:
        await one.put({"id": "in-hand", "input": {"inputs": 1}})
        await one.put({"id": "waits", "input": {"inputs": 2}})
        await one.engine_started()
        one.consumer.stop()
        engine.let_go.set()
        assert await one.output("in-hand") == {"inputs": 1, "parameters": {}}
    async with inside(queue, other := ready_engine()) as one:
        assert await one.output("waits") == {"inputs": 2, "parameters": {}}
        assert (engine.asked, other.asked) == ([1], [2])


async def test_what_is_not_done_within_the_grace_goes_back_and_is_no_fault_of_the_job(queue: Queue) -> None:
    for _ in range(4):  # more often than a job may kill its worker
        held = SteppingEngine()
        async with inside(queue, held, MOORAGE_QUEUE_GRACE_SECONDS="0") as one:
            if await one.store.find("long") is None:
                await one.put({"id": "long", "input": {"inputs": 1}})
            await one.engine_started()
        assert held.stopped.wait(WAIT_SECONDS)
    async with inside(queue, ready_engine()) as one:
        assert await one.output("long") == {"inputs": 1, "parameters": {}}
        totals, _, _ = await one.store.counts()
        assert totals == {"COMPLETED": 1}
