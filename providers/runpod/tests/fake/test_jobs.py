"""The queue of an endpoint, by the clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_runpod.testing.jobs import (
    CANCELLED,
    COMPLETED,
    ENDED,
    FAILED,
    IN_PROGRESS,
    IN_QUEUE,
    TIMED_OUT,
    Job,
    JobQueue,
    checked_body,
)


def queue(timeout: float = 0.0) -> JobQueue:
    return JobQueue(lambda: timeout, lambda: None)


BODY = {"input": {"a": 1}}


def test_jobs_are_taken_in_order_and_answered() -> None:
    jobs = queue()
    first, second = jobs.submit(BODY, 0), jobs.submit(BODY, 1)
    assert jobs.take("w", 3) is first
    assert jobs.take("w", 3) is second
    assert jobs.take("w", 3) is None
    jobs.report("w", first.id, {"output": None}, 5)
    assert first.as_json() == {
        "id": first.id,
        "status": COMPLETED,
        "delayTime": 3000,
        "executionTime": 2000,
        "workerId": "w",
        "output": None,
    }
    assert jobs.counts() == {"completed": 1, "failed": 0, "inProgress": 1, "inQueue": 0, "retried": 0}


def test_an_error_is_a_failure_and_may_be_retried() -> None:
    jobs = queue()
    job = jobs.submit(BODY, 0)
    jobs.take("w", 0)
    assert not jobs.retry(job, 0)
    jobs.report("w", job.id, {"error": "no memory"}, 1)
    assert (job.status, job.as_json()["error"]) == (FAILED, "no memory")
    assert jobs.retry(job, 2)
    assert job.as_json() == {"id": job.id, "status": IN_QUEUE}
    assert jobs.take("w2", 3) is job


def test_progress_is_an_output_in_between() -> None:
    jobs = queue()
    job = jobs.submit(BODY, 0)
    jobs.take("w", 0)
    jobs.report("w", job.id, {"status": IN_PROGRESS, "output": "half"}, 1)
    assert (job.status, job.output) == (IN_PROGRESS, "half")


@pytest.mark.parametrize(
    ("sync", "policy", "ended_at", "gone_at"),
    [
        (False, {}, None, 86400),
        (False, {"ttl": 20_000}, None, 20),
        (False, {"ttl": 20_000}, 10, 10 + 1800),
        (True, {}, 10, 10 + 60),
    ],
)
def test_how_long_a_job_is_known(
    sync: bool, policy: dict[str, int], ended_at: float | None, gone_at: float
) -> None:
    jobs = queue()
    job = jobs.submit({**BODY, "policy": policy}, 0, sync=sync)
    assert job.id.startswith("sync-") is sync
    if ended_at is not None:
        jobs.take("w", 0)
        jobs.report("w", job.id, {"output": 1}, ended_at)
    assert jobs.next_due() == gone_at
    assert jobs.find(job.id, gone_at - 0.001) is job
    assert jobs.find(job.id, gone_at) is None


@pytest.mark.parametrize(
    ("endpoint", "policy", "limit"), [(0.0, {}, 600), (7.0, {}, 7), (7.0, {"executionTimeout": 5000}, 5)]
)
def test_what_runs_too_long_times_out_and_its_worker_is_told(
    endpoint: float, policy: dict[str, int], limit: float
) -> None:
    jobs = queue(endpoint)
    job = jobs.submit({**BODY, "policy": policy}, 0)
    jobs.take("w", 100)
    assert jobs.next_due() == 100 + limit
    jobs.expire(100 + limit)
    assert job.status == TIMED_OUT
    assert jobs.stops("w") == [job.id]
    assert jobs.stops("w") == []
    jobs.report("w", job.id, {"output": "late"}, 200 + limit)
    assert job.status == TIMED_OUT


def test_a_lost_worker_costs_a_job_one_attempt_of_two() -> None:
    jobs = queue()
    job = jobs.submit(BODY, 0)
    jobs.take("w1", 0)
    jobs.worker_lost("w1", 1)
    assert job.status == IN_QUEUE
    jobs.take("w2", 2)
    jobs.report("w1", job.id, {"output": "of the first"}, 2)  # it is no longer its job
    assert job.status == IN_PROGRESS
    jobs.worker_lost("w2", 3)
    assert (job.status, job.error) == (FAILED, "job timed out after 1 retries")
    assert jobs.counts()["retried"] == 1


def test_purge_takes_what_waits_only() -> None:
    jobs = queue()
    running, waiting = jobs.submit(BODY, 0), jobs.submit(BODY, 0)
    jobs.take("w", 0)
    assert jobs.purge(1) == 1
    assert (running.status, waiting.status) == (IN_PROGRESS, CANCELLED)


@pytest.mark.parametrize(
    ("body", "size", "refused"),
    [
        (BODY, 10, None),
        ({}, 2, None),  # a worker refuses an input that is missing, the API does not
        (BODY, 101, "exceeds the limit of 100 bytes"),
        ([1], 3, "must be a JSON object"),
        ({"policy": {"ttl": 9_999}}, 3, "policy.ttl"),
        ({"policy": {"executionTimeout": 4_999}}, 3, "policy.executionTimeout"),
        ({"policy": {"executionTimeout": "long"}}, 3, "policy.executionTimeout"),
    ],
)
def test_what_may_be_submitted(body: Any, size: int, refused: str | None) -> None:
    told = checked_body(body, size, most=100)
    assert told is None if refused is None else refused in str(told)


STEPS = ["submit", "take", "done", "fail", "lose", "cancel", "purge"]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2))))
def test_an_ended_job_stays_ended_and_every_job_is_counted_once(steps: list[tuple[str, int]]) -> None:
    jobs = queue()
    all_jobs: list[Job] = []
    ended: dict[str, str] = {}
    for now, (step, number) in enumerate(steps):
        worker = f"w{number}"
        match step:
            case "submit":
                all_jobs.append(jobs.submit(BODY, now))
            case "take":
                jobs.take(worker, now)
            case "done" | "fail":
                for job in jobs.held_by(worker)[:1]:
                    jobs.report(worker, job.id, {"output": 1} if step == "done" else {"error": "x"}, now)
            case "lose":
                jobs.worker_lost(worker, now)
            case "cancel":
                for job in all_jobs[number : number + 1]:
                    jobs.cancel(job, now)
            case _:
                jobs.purge(now)
        for job in all_jobs:
            assert ended.setdefault(job.id, job.status) == job.status or ended[job.id] not in ENDED
            ended[job.id] = job.status
    counts = jobs.counts()
    cancelled = sum(j.status == CANCELLED for j in all_jobs)
    known = counts["completed"] + counts["failed"] + counts["inProgress"] + counts["inQueue"]
    assert known + cancelled == len(all_jobs)
