"""The life of a job as pure functions: every ending from every state, time, and shares of places."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.deployment import Deployment, DeploymentSpec, Phase, ReplicaCounts, Status
from moorage.domain.job import (
    AGAIN,
    KEPT_SECONDS,
    KEPT_SYNC_SECONDS,
    TIMES_BROKEN,
    BrokenOff,
    Ending,
    Job,
    JobPolicy,
    JobState,
    NotServing,
    NotTaken,
    Output,
    RanTooLong,
    Refusal,
    as_seen,
    begun,
    cancelled,
    ended,
    expired,
    job_id,
    let_go,
    seconds_to_run,
    share_places,
    timed_out,
)
from moorage.domain.job_request import NewJob, broken_job_rules, input_text, is_job_id
from moorage.domain.job_view import (
    WEBHOOK_OUTPUT_CHARACTERS,
    JobCounts,
    health_document,
    job_delivery,
    job_document,
    stream_document,
    ticket,
)
from moorage.domain.model import ContainerImage, HubModel, Source

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
JOB = Job("j-u1", "org", "dep", NOW, policy=JobPolicy(600.0, 3600.0), due_at=NOW)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


RUNNING = begun(JOB, after(1))
ENDINGS: list[Ending] = [
    Output("1"),
    Refusal("{}"),
    NotTaken(),
    NotTaken(5.0),
    NotServing(),
    BrokenOff("{}"),
    RanTooLong(),
]


def test_a_run_begins_and_ends() -> None:
    assert (RUNNING.state, RUNNING.started_at, RUNNING.retries) == (JobState.IN_PROGRESS, after(1), 0)
    assert RUNNING.due_at == JOB.due_at, "who finds it after its lease takes it"
    done = ended(RUNNING, Output("1"), after(3), 0.0)
    assert (done.state, done.ended_at, done.due_at) == (JobState.COMPLETED, after(3), None)
    assert json.loads(job_document(done, "[1]")) == {
        "id": "j-u1",
        "status": "COMPLETED",
        "delayTime": 1000,
        "executionTime": 2000,
        "output": [1],
    }


def test_a_second_beginning_without_an_end_is_a_retry() -> None:
    again = begun(RUNNING, after(60))
    assert (again.retries, again.started_at) == (1, after(60))
    assert let_go(RUNNING, after(2)).retries == 1
    assert let_go(JOB, after(2)).retries == 0, "it had not begun"
    assert begun(let_go(RUNNING, after(2)), after(3)).retries == 1, "counted once"


@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
@pytest.mark.parametrize("job", [JOB, RUNNING], ids=["queued", "running"])
def test_every_ending_leads_to_the_end_or_back_into_the_queue(job: Job, ending: Ending) -> None:
    new = ended(job, ending, after(5), 0.5)
    assert new.state.final == (new.ended_at is not None) == (new.due_at is None)
    assert new.state.final == (new.forget_at is not None) == (new.expires_at is None)
    if not new.state.final:
        assert new.state is JobState.IN_QUEUE
        assert new.started_at is None
        assert new.due_at is not None
        assert new.due_at > after(5)


def test_waits_grow_to_a_cap_and_heed_the_replica() -> None:
    job, waits = RUNNING, []
    for _ in range(12):
        job = ended(job, NotTaken(), NOW, 0.0)
        assert job.due_at is not None
        waits.append((job.due_at - NOW).total_seconds())
    assert waits == sorted(waits)
    assert waits[-1] == AGAIN.cap
    patient = ended(RUNNING, NotTaken(20.0), NOW, 0.9)
    assert patient.due_at == after(20)
    assert ended(RUNNING, NotTaken(10**6), NOW, 0.0).due_at == after(AGAIN.cap)


def test_a_job_that_breaks_its_replicas_fails_in_the_end() -> None:
    job = RUNNING
    for n in range(1, TIMES_BROKEN):
        job = begun(ended(job, BrokenOff("last words"), NOW, 0.0), NOW)
        assert (job.broken, job.retries) == (n, n)
    job = ended(job, BrokenOff("last words"), NOW, 0.0)
    assert (job.state, job.error) == (JobState.FAILED, "last words")


def test_time_runs_out() -> None:
    assert JOB.expires_at == after(3600)
    assert not expired(JOB, after(3599.9))
    assert expired(RUNNING, after(3600))
    assert seconds_to_run(JOB, after(10)) == 600
    assert seconds_to_run(JOB, after(3500)) == 100
    over = timed_out(RUNNING, after(3600))
    assert not expired(over, after(9999))
    assert seconds_to_run(over, after(1)) == 0


def test_a_reader_sees_what_is_true_now() -> None:
    assert as_seen(RUNNING, after(5)) == RUNNING
    late = as_seen(RUNNING, after(3601))
    assert late is not None
    assert late.state is JobState.TIMED_OUT
    for job, kept in ((JOB, KEPT_SECONDS), (replace(JOB, sync=True), KEPT_SYNC_SECONDS)):
        done = cancelled(job, after(5))
        assert as_seen(done, after(5 + kept - 0.001)) == done
        assert as_seen(done, after(5 + kept)) is None


def test_ids_have_runpods_form() -> None:
    uuid = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
    assert job_id(uuid, sync=False) == "0f8fad5b-d9cb-469f-a165-70867728950e-u1"
    assert job_id(uuid, sync=True) == "sync-0f8fad5b-d9cb-469f-a165-70867728950e-u1"
    assert is_job_id(job_id(uuid, sync=True))
    for bad in ("", "..", "a/b", "a?b", "é", "a" * 129, "a\n"):
        assert not is_job_id(bad)


# -- shares -------------------------------------------------------------------------------------------------


def test_places_are_given_in_turn() -> None:
    assert share_places(5, {"a": 9, "b": 1, "c": 9}) == {"a": 2, "b": 1, "c": 2}
    assert share_places(2, {"a": 9, "b": 9, "c": 9}) == {"a": 1, "b": 1}
    assert share_places(9, {"a": 0, "b": -3, "c": 2}) == {"c": 2}
    assert share_places(0, {"a": 1}) == share_places(-1, {"a": 1}) == share_places(3, {}) == {}


@given(st.integers(0, 50), st.dictionaries(st.text(max_size=3), st.integers(-2, 20), max_size=8))
def test_shares_are_fair_and_use_all_there_is(room: int, queues: dict[str, int]) -> None:
    shares = share_places(room, queues)
    wanted = {name: max(0, places) for name, places in queues.items()}
    assert sum(shares.values()) == min(room, sum(wanted.values()))
    least = min((shares.get(name, 0) for name in wanted if shares.get(name, 0) < wanted[name]), default=None)
    for name, share in shares.items():
        assert 0 < share <= wanted[name]
        assert least is None or share <= least + 1, "nobody has two more than one who wants more"


# -- requests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "broken"),
    [
        (NewJob(1), set()),
        (NewJob(0), set()),
        (NewJob({}), set()),
        (NewJob(None), {("body.input", "missing")}),
        (NewJob(1, execution_timeout=5_000, ttl=10_000), set()),
        (NewJob(1, execution_timeout=604_800_000, ttl=604_800_000), set()),
        (NewJob(1, execution_timeout=4_999), {("body.policy.executionTimeout", "range")}),
        (NewJob(1, ttl=604_800_001), {("body.policy.ttl", "range")}),
        (NewJob(1, ttl=10**400), {("body.policy.ttl", "range")}),
        (NewJob(1, s3_config=True), {("body.s3Config", "provider_takes_jobs")}),
    ],
    ids=repr,
)
def test_rules(request_: NewJob, broken: set[tuple[str, str]]) -> None:
    errors = broken_job_rules(request_)
    assert {(error.field, error.rule) for error in errors} == broken
    assert all(error.message for error in errors)


def deployment(source: Source) -> Deployment:
    status = Status(Phase.READY, NOW, NOW)
    return Deployment("dep", "org", "name", DeploymentSpec(source), status, NOW, "usr")


def test_the_shorthand_is_for_our_own_workers() -> None:
    ours, somebodys = deployment(HubModel("a/b")), deployment(ContainerImage("a/b"))
    short = {"prompt": "x", "steps": 4}
    assert json.loads(input_text(ours, short)) == {"inputs": "x", "parameters": {"steps": 4}}
    assert json.loads(input_text(somebodys, short)) == short
    for value in ({"inputs": 1, "prompt": 2}, {"moorage": "warm_up"}, [1], "é", {"input": "x"}):
        assert json.loads(input_text(ours, value)) == value


def test_what_json_cannot_say_is_refused() -> None:
    for value in (float("nan"), {"a": [float("inf")]}):
        with pytest.raises(ValueError, match="JSON"):
            input_text(deployment(HubModel("a/b")), value)


# -- documents ----------------------------------------------------------------------------------------------


def test_documents_hold_the_output_as_the_model_wrote_it() -> None:
    done = ended(RUNNING, Output("1"), after(3), 0.0)
    assert '"output":[1.0,  1e5]' in job_document(done, "[1.0,  1e5]")
    assert stream_document(done, "null") == '{"status":"COMPLETED","stream":[{"output":null}]}'
    assert json.loads(stream_document(RUNNING, None)) == {"status": "IN_PROGRESS", "stream": []}
    assert json.loads(ticket(JOB)) == {"id": "j-u1", "status": "IN_QUEUE"}
    failed = ended(RUNNING, Refusal('{"status":400}'), after(3), 0.0)
    assert json.loads(job_document(replace(failed, retries=2), None))["error"] == '{"status":400}'


def test_health_counts_replicas_that_work() -> None:
    counts = JobCounts({JobState.IN_PROGRESS: 5, JobState.TIMED_OUT: 1, JobState.FAILED: 2}, 3)
    told = json.loads(health_document(counts, ReplicaCounts(desired=4, ready=3)))
    assert told["jobs"] == {"completed": 0, "failed": 3, "inProgress": 5, "inQueue": 0, "retried": 3}
    workers = told["workers"]
    assert (workers["running"], workers["idle"], workers["initializing"], workers["ready"]) == (3, 0, 1, 3)


def test_a_webhook_is_told_of_the_end_only() -> None:
    told = replace(RUNNING, webhook="https://user.example/hook")
    done = ended(told, Output("1"), after(3), 0.0)
    assert job_delivery(told, None, NOW, lambda p: f"{p}_1", "http://here") is None
    assert job_delivery(replace(done, webhook=None), "1", NOW, lambda p: f"{p}_1", "http://here") is None
    short, long = "[1]", json.dumps("x" * WEBHOOK_OUTPUT_CHARACTERS)
    for output, sent in ((short, [1]), (long, None), (None, None)):
        delivery = job_delivery(done, output, NOW, lambda p: f"{p}_1", "http://here")
        assert delivery is not None
        payload = json.loads(delivery.payload)
        assert (delivery.event_type, payload["type"]) == ("job.completed", "job.completed")
        assert payload["data"].get("output") == sent
        assert payload["data"]["status_url"] == "http://here/v2/dep/status/j-u1"
        assert (delivery.subject_id, delivery.due_at) == ("dep", NOW)


def test_no_repr_has_what_a_job_brings() -> None:
    for value in (
        Output("secret"),
        Refusal("secret"),
        replace(JOB, error="secret"),
        NewJob("secret", b"secret"),
    ):
        assert "secret" not in repr(value)
