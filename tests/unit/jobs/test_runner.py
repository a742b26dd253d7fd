"""Jobs are claimed in turn, run at least once, and stopped when nobody wants them any more."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from datetime import timedelta
from typing import Any  # a job's input

import pytest
from aiohttp import web

from moorage.domain.deployment import Deployment, Phase
from moorage.domain.job import TIMES_BROKEN, JobState, cancelled
from moorage.engine.job_runner import JobLimits
from moorage.errors import StoreError
from moorage.ports.store import DeliveryFilter, Insert, Update
from moorage.testing.store_rows import deployment as deployment_row
from moorage.testing.store_rows import in_phase

from .conftest import LIMITS, Process, Worker, Yard, listening


async def for_ever(request: web.Request, body: Any) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def break_off(request: web.Request, body: Any) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cancel_elsewhere(yard: Yard, id_: str) -> None:
    """As the service does, in another process than the one that runs the job."""
    await yard.store.commit([Update(cancelled(await yard.job(id_), yard.clock.now()), release=True)])


async def test_a_job_is_run_and_its_output_kept(yard: Yard) -> None:
    process = await yard.start("a")
    id_ = await yard.queue(process, "a", {"inputs": "é"})
    done = await yard.ended(id_)
    assert done.state is JobState.COMPLETED
    assert done.started_at is not None
    assert done.due_at is None
    assert await yard.output(id_) == {"outputs": {"inputs": "é"}}
    assert [job.id for job in process.ended] == [id_]


async def test_what_another_process_queued_is_run_too(yard: Yard) -> None:
    await yard.start("a")
    before = await yard.queue(None, "a")
    assert (await yard.ended(before)).state is JobState.COMPLETED


async def test_what_was_queued_before_the_start_is_run(yard: Yard) -> None:
    ids = [await yard.queue(None, "a", n) for n in range(20)]
    await yard.start("a")
    for id_ in ids:
        assert (await yard.ended(id_)).state is JobState.COMPLETED


# -- turns --------------------------------------------------------------------------------------------------


async def test_a_flood_in_one_queue_holds_up_no_other(yard: Yard, worker: Worker) -> None:
    async def script(request: web.Request, body: Any) -> web.StreamResponse:
        return await (for_ever(request, body) if body == "flood" else _ok(body))

    worker.script = script
    process = await yard.start("flooded", "quiet", limits=replace(LIMITS, running=16, per_replica=4))
    for _ in range(50):
        await yard.queue(process, "flooded", "flood")
    await worker.until(lambda worker: worker.busy == 4)
    for n in range(5):
        assert (await yard.ended(await yard.queue(process, "quiet", n))).state is JobState.COMPLETED
    assert worker.bodies.count("flood") == 4


async def test_when_all_places_are_taken_each_queue_gets_one_in_turn(yard: Yard, worker: Worker) -> None:
    for n in range(30):
        await yard.queue(None, "first", f"first {n}")
    for n in range(3):
        await yard.queue(None, "second", f"second {n}")
        await yard.queue(None, "third", f"third {n}")
    await yard.start("first", "second", "third", limits=replace(LIMITS, running=1))
    await worker.until(lambda worker: len(worker.bodies) >= 12)
    told = worker.bodies[:9]
    for name in ("first", "second", "third"):
        assert [body for body in told if body.startswith(name)] == [f"{name} {n}" for n in range(3)]


async def test_low_priority_waits(yard: Yard, worker: Worker) -> None:
    await yard.queue(None, "a", "low", low_priority=True)
    for n in range(3):
        await yard.queue(None, "a", n)
    await yard.start("a", limits=replace(LIMITS, running=1))
    await worker.until(lambda worker: len(worker.bodies) == 4)
    assert worker.bodies == [0, 1, 2, "low"]


async def test_more_replicas_take_more_and_each_its_share(yard: Yard, worker: Worker) -> None:
    paths: list[str] = []

    async def script(request: web.Request, body: Any) -> web.StreamResponse:
        paths.append(request.path)
        return await for_ever(request, body)

    worker.script = script
    process = await yard.start(limits=replace(LIMITS, per_replica=2))
    process.serve("a", yard.target("one"), yard.target("two"))
    for n in range(9):
        await yard.queue(process, "a", n)
    await worker.until(lambda worker: worker.busy == 4)
    assert sorted(paths) == ["/one/infer"] * 2 + ["/two/infer"] * 2


# -- ends ---------------------------------------------------------------------------------------------------


async def test_a_cancel_interrupts_the_request_at_once(yard: Yard, worker: Worker) -> None:
    worker.script = for_ever
    process = await yard.start("a")
    id_ = await yard.queue(process, "a")
    await worker.until(lambda worker: worker.busy == 1)
    await process.store.commit([Update(cancelled(await yard.job(id_), yard.clock.now()), release=True)])
    process.runner.interrupt(id_)
    await worker.until(lambda worker: worker.left == 1)
    assert (await yard.job(id_)).state is JobState.CANCELLED


async def test_a_cancel_through_another_process_interrupts_it_too(yard: Yard, worker: Worker) -> None:
    worker.script = for_ever
    await yard.start("a")
    ids = [await yard.queue(None, "a", n) for n in range(2)]
    await worker.until(lambda worker: worker.busy == 2)
    await cancel_elsewhere(yard, ids[0])
    await worker.until(lambda worker: worker.left == 1)
    assert worker.busy == 1, "the other one goes on"
    assert [(await yard.job(id_)).state for id_ in ids] == [JobState.CANCELLED, JobState.IN_PROGRESS]


async def test_a_run_that_takes_too_long_times_out(yard: Yard, worker: Worker) -> None:
    worker.script = for_ever
    process = await yard.start("a")
    id_ = await yard.queue(process, "a", execution_timeout=0.05)
    assert (await yard.ended(id_)).state is JobState.TIMED_OUT
    await worker.until(lambda worker: worker.left == 1)


async def test_a_job_whose_time_is_over_times_out_in_the_middle_of_its_run(
    yard: Yard, worker: Worker
) -> None:
    worker.script = for_ever
    process = await yard.start("a")
    id_ = await yard.queue(process, "a", ttl=0.2)
    assert (await yard.ended(id_)).state is JobState.TIMED_OUT
    await worker.until(lambda worker: worker.left == 1)


async def test_a_job_that_nobody_takes_times_out_and_its_webhook_is_told(yard: Yard) -> None:
    await yard.store.commit([Insert(_deployment("a", Phase.LOADING_MODEL))])
    process = await yard.start()
    id_ = await yard.queue(process, "a", ttl=0.2, webhook="https://user.example/hook")
    assert (await yard.ended(id_)).state is JobState.TIMED_OUT
    [delivery] = (await yard.store.deliveries("org", DeliveryFilter(), None, 9)).items
    assert delivery.event_type == "job.timed_out"
    assert json.loads(delivery.payload)["data"]["id"] == id_


async def test_a_job_of_a_queue_without_room_times_out_in_time(yard: Yard, worker: Worker) -> None:
    worker.script = for_ever
    limits = replace(LIMITS, per_replica=1, lease=60.0, idle=60.0)  # nothing else makes it look
    process = await yard.start("a", limits=limits)
    await yard.queue(process, "a")
    await worker.until(lambda worker: worker.busy == 1)
    id_ = await yard.queue(process, "a", ttl=0.2)
    assert (await yard.ended(id_)).state is JobState.TIMED_OUT
    assert worker.busy == 1


async def test_what_is_kept_long_enough_is_forgotten(yard: Yard) -> None:
    process = await yard.start("a", limits=replace(LIMITS, forget_every=0.02))
    id_ = await yard.queue(process, "a")
    await yard.ended(id_)
    yard.clock.offset = timedelta(minutes=31)
    async with asyncio.timeout(10):
        while await yard.store.job(id_, "org") is not None:  # noqa: ASYNC110  # no signal
            await asyncio.sleep(0.01)
    assert await yard.output(id_) is None


# -- deployments that do not serve --------------------------------------------------------------------------


async def test_a_queue_sleeps_until_its_deployment_serves(yard: Yard, worker: Worker) -> None:
    await yard.store.commit([Insert(_deployment("a", Phase.LOADING_MODEL))])
    process = await yard.start()
    ids = [await yard.queue(process, "a", n) for n in range(100)]
    for id_ in ids:
        job = await yard.until(id_, lambda job: job.due_at is not None and job.due_at > yard.clock.now())
        assert job.state is JobState.IN_QUEUE
    process.serve("a", yard.target("a"))
    for id_ in ids:
        assert (await yard.ended(id_)).state is JobState.COMPLETED
    assert worker.bodies == list(range(100)), "in the order in which they came"


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.DELETED])
async def test_jobs_of_a_deployment_that_is_over_fail(yard: Yard, phase: Phase) -> None:
    await yard.store.commit([Insert(_deployment("a", Phase.LOADING_MODEL))])
    process = await yard.start()
    id_ = await yard.queue(process, "a")
    await yard.until(id_, lambda job: job.due_at is not None and job.due_at > yard.clock.now())
    row = await yard.store.deployment("a")
    assert row is not None
    await yard.store.commit([Update(in_phase(row, phase))])
    process.runner.opened("a")
    done = await yard.ended(id_)
    assert done.state is JobState.FAILED
    assert json.loads(done.error or "")["code"] == "deployment_over"


async def test_a_round_stores_what_opened_though_nothing_is_to_be_claimed(yard: Yard) -> None:
    await yard.store.commit([Insert(_deployment("a", Phase.LOADING_MODEL))])
    process = Process(yard, LIMITS)
    id_ = await yard.queue(process, "a")
    await process.runner.round(5)
    assert (await yard.job(id_)).state is JobState.IN_QUEUE
    process.serve("a", yard.target("a"))
    assert await process.runner.round(5) == 1
    assert (await yard.job(id_)).state is JobState.COMPLETED
    await process.replicas.aclose()


async def test_what_opened_while_a_round_ended_is_kept_for_the_next(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, told = Process(yard, LIMITS), list[str]()
    hangs = asyncio.Event()

    async def hanging(deployment_ids: Any, now: Any) -> None:
        await hangs.wait()
        told.extend(deployment_ids)

    monkeypatch.setattr(process.store, "wake_jobs", hanging)
    process.runner.opened("a")
    await process.runner.round(0.05)
    assert told == []
    hangs.set()
    await process.runner.round(5)
    assert told == ["a"]


# -- trouble ------------------------------------------------------------------------------------------------


async def test_a_replica_that_cannot_be_connected_is_tried_again(yard: Yard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = await yard.start()
    process.serve("a", f"http://127.0.0.1:{port}/a")
    id_ = await yard.queue(process, "a")
    job = await yard.until(id_, lambda job: job.waits > 0)
    assert (job.state, job.retries) == (JobState.IN_QUEUE, 0)
    async with listening(Worker(), port):
        assert (await yard.ended(id_)).state is JobState.COMPLETED


async def test_of_several_replicas_one_that_answers_is_found(yard: Yard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}/a"
    process = await yard.start()
    process.serve("a", dead, yard.target("a"), dead)
    for n in range(6):
        done = await yard.ended(await yard.queue(process, "a", n))
        assert (done.state, done.waits) == (JobState.COMPLETED, 0)


async def test_a_busy_replica_is_asked_again(yard: Yard, worker: Worker) -> None:
    statuses = [503, 429, 200]

    async def script(request: web.Request, body: Any) -> web.StreamResponse:
        return web.json_response({}, status=statuses.pop(0))

    worker.script = script
    process = await yard.start("a")
    done = await yard.ended(await yard.queue(process, "a"))
    assert (done.state, done.waits, done.retries) == (JobState.COMPLETED, 2, 0)


async def test_a_replica_that_breaks_off_is_given_few_tries(yard: Yard, worker: Worker) -> None:
    worker.script = break_off
    process = await yard.start("a")
    done = await yard.ended(await yard.queue(process, "a"))
    assert done.state is JobState.FAILED
    assert json.loads(done.error or "")["code"] == "replica_failed"
    assert len(worker.bodies) == TIMES_BROKEN
    assert done.retries == TIMES_BROKEN - 1


async def test_a_broken_run_is_repeated_and_counted(yard: Yard, worker: Worker) -> None:
    async def script(request: web.Request, body: Any) -> web.StreamResponse:
        return await (break_off(request, body) if len(worker.bodies) == 1 else _ok(body))

    worker.script = script
    process = await yard.start("a")
    done = await yard.ended(await yard.queue(process, "a"))
    assert (done.state, done.retries) == (JobState.COMPLETED, 1)
    assert (await yard.store.job_counts("a")).retried == 1


async def test_a_store_that_fails_for_a_moment_loses_nothing(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await yard.start("a")
    commit, failures = process.store.commit, iter([True, False, True, True])

    async def failing(writes: Any) -> None:
        if next(failures, False):
            raise StoreError("the disk is full")
        await commit(writes)

    id_ = await yard.queue(process, "a")
    monkeypatch.setattr(process.store, "commit", failing)
    assert (await yard.ended(id_)).state is JobState.COMPLETED


# -- processes ----------------------------------------------------------------------------------------------


async def _die(yard: Yard, process: Process) -> None:
    """As SIGKILL does: nothing is written any more."""

    async def dead(*_: Any) -> None:
        raise StoreError("the process is dead")

    process.store.commit = dead  # type: ignore[method-assign, assignment]  # dead
    await yard.stop(process)


async def test_a_run_whose_process_died_is_begun_again(yard: Yard, worker: Worker) -> None:
    worker.script = for_ever
    first = await yard.start("a")
    id_ = await yard.queue(first, "a")
    await worker.until(lambda worker: worker.busy == 1)
    await _die(yard, first)
    assert (await yard.job(id_)).state is JobState.IN_PROGRESS
    worker.script = lambda request, body: _ok(body)
    await yard.start("a")
    await asyncio.sleep(0.05)
    assert (await yard.job(id_)).state is JobState.IN_PROGRESS, "the lease still stands"
    yard.clock.offset = timedelta(seconds=LIMITS.lease)
    await yard.queue(None, "b")  # the clock was moved behind the sleeper's back
    done = await yard.ended(id_)
    assert (done.state, done.retries) == (JobState.COMPLETED, 1)


async def test_a_process_that_stops_lets_go_so_that_another_begins_at_once(
    yard: Yard, worker: Worker
) -> None:
    worker.script = for_ever
    first = await yard.start("a")
    id_ = await yard.queue(first, "a")
    await worker.until(lambda worker: worker.busy == 1)
    await yard.stop(first)
    assert worker.left == 1
    assert (await yard.job(id_)).state is JobState.IN_QUEUE
    worker.script = lambda request, body: _ok(body)
    await yard.start("a")
    done = await yard.ended(id_)
    assert (done.state, done.retries) == (JobState.COMPLETED, 1)


async def test_what_is_nearly_done_is_waited_for_at_the_stop(yard: Yard, worker: Worker) -> None:
    finish = asyncio.Event()

    async def script(request: web.Request, body: Any) -> web.StreamResponse:
        await finish.wait()
        return await _ok(body)

    worker.script = script
    process = await yard.start("a", limits=replace(LIMITS, grace=5.0))
    id_ = await yard.queue(process, "a")
    await worker.until(lambda worker: worker.busy == 1)
    stopping = asyncio.create_task(yard.stop(process))
    await asyncio.sleep(0)
    finish.set()
    await stopping
    done = await yard.job(id_)
    assert (done.state, done.retries) == (JobState.COMPLETED, 0)


async def test_a_lease_is_kept_while_the_run_lasts(yard: Yard, worker: Worker) -> None:
    """Longer than the lease; the other process, which looks all the time, does not take it."""
    finish = asyncio.Event()

    async def script(request: web.Request, body: Any) -> web.StreamResponse:
        await finish.wait()
        return await _ok(body)

    worker.script = script
    limits = JobLimits(lease=0.2, grace=0.05, idle=0.02)
    first = await yard.start("a", limits=limits)
    await yard.start("a", limits=limits)
    id_ = await yard.queue(first, "a")
    await asyncio.sleep(0.7)
    finish.set()
    done = await yard.ended(id_)
    assert (done.state, done.retries, len(worker.bodies)) == (JobState.COMPLETED, 0, 1)


async def test_a_job_is_not_begun_again_beside_itself_after_an_outage_longer_than_its_lease(
    yard: Yard, worker: Worker
) -> None:
    finish = asyncio.Event()

    async def script(request: web.Request, body: Any) -> web.StreamResponse:
        await finish.wait()
        return await _ok(body)

    worker.script = script
    process = await yard.start("a", limits=replace(LIMITS, lease=30.0))
    id_ = await yard.queue(process, "a")
    await worker.until(lambda worker: worker.busy == 1)
    yard.clock.offset += timedelta(seconds=60)  # no renewal came through meanwhile
    process.runner.others_wrote()
    await asyncio.sleep(0.1)
    finish.set()
    done = await yard.ended(id_)
    assert (done.state, done.retries, len(worker.bodies)) == (JobState.COMPLETED, 0, 1)


async def test_two_processes_run_each_job_once(yard: Yard, worker: Worker) -> None:
    processes = [await yard.start("a", "b") for _ in range(2)]
    ids = [await yard.queue(processes[n % 2], "ab"[n % 3 == 0], n) for n in range(60)]
    for id_ in ids:
        assert (await yard.ended(id_)).state is JobState.COMPLETED
    assert sorted(worker.bodies) == list(range(60))


async def test_what_was_taken_over_is_stopped_here(yard: Yard, worker: Worker) -> None:
    """A process that was frozen past its lease: on waking it finds out, and its run ends."""
    worker.script = for_ever
    process = await yard.start("a", limits=replace(LIMITS, lease=0.3), deaf=True)
    id_ = await yard.queue(process, "a")
    await worker.until(lambda worker: worker.busy == 1)
    row = await yard.job(id_)
    await yard.store.commit([Update(row, release=True)])  # as if another had claimed it, and let go
    await worker.until(lambda worker: worker.left >= 1)


async def _ok(body: Any) -> web.StreamResponse:
    return web.json_response({"outputs": body})


def _deployment(id_: str, phase: Phase) -> Deployment:
    return replace(deployment_row(1, "org", phase), id=id_)
