"""Messages, records and counts as plain values: no server is needed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any  # JSON

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_worker.errors import BadInput, MalformedBody
from moorage_worker.queue.messages import Unreadable, new_job, read_message
from moorage_worker.queue.records import JobRecord, Status, WorkerWord, health_document, job_document

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
IDS = st.from_regex(r"[A-Za-z0-9._:-]{1,128}", fullmatch=True)


@given(asked=JSON, job_id=IDS)
def test_what_the_front_writes_the_worker_reads(asked: Any, job_id: str) -> None:
    job = new_job(orjson.dumps({"input": asked, "id": job_id, "policy": {"ttl": 10_000}}), "made")
    message = read_message(job.body, job.id, 100.0)
    assert (message.id, message.asked) == (job_id, asked)
    assert (message.queued_at, message.expires_at, message.execution_seconds) == (100.0, 110.0, None)


@given(asked=JSON)
def test_a_job_without_an_id_gets_the_one_that_was_made(asked: Any) -> None:
    job = new_job(orjson.dumps({"input": asked}), "made")
    assert (job.id, job.own_id) == ("made", False)
    assert orjson.loads(job.body) == {"input": asked, "id": "made"}


@given(body=st.binary(max_size=60) | JSON.map(orjson.dumps), message_id=st.none() | st.text(max_size=8))
def test_anything_else_is_refused_and_nothing_breaks(body: bytes, message_id: str | None) -> None:
    with suppress(Unreadable):
        assert read_message(body, message_id, None).id
    with suppress(BadInput, MalformedBody):
        assert new_job(body, "made").id


def test_the_order_of_members_does_not_make_another_job() -> None:
    one = new_job(b'{"input": {"a": 1, "b": 2}, "id": "x"}', "")
    other = new_job(b'{"id": "x", "input": {"b": 2, "a": 1}}', "")
    assert one.digest == other.digest
    assert one.digest != new_job(b'{"id": "x", "input": {"a": 1, "b": 3}}', "").digest


@pytest.mark.parametrize(
    ("record", "document"),
    [
        (JobRecord(Status.IN_QUEUE, queued_at=5), {}),
        (
            JobRecord(Status.IN_PROGRESS, 5, 8, worker="w", progress=b'{"percent":50}'),
            {"delayTime": 3, "workerId": "w", "output": {"percent": 50}},
        ),
        (
            JobRecord(Status.COMPLETED, 5, 8, 20, "w", output=b'{"x":1}'),
            {"delayTime": 3, "executionTime": 12, "workerId": "w", "output": {"x": 1}},
        ),
        (JobRecord(Status.FAILED, 5, finished_at=20, error=b'{"status":400}'), {"error": '{"status":400}'}),
        (JobRecord(Status.CANCELLED, 5, 8, 20, "w"), {"delayTime": 3, "executionTime": 12, "workerId": "w"}),
        # The clock of Redis was set back.
        (
            JobRecord(Status.COMPLETED, 9, 8, 7, output=b"1"),
            {"delayTime": 0, "executionTime": 0, "output": 1},
        ),
    ],
)
def test_a_record_is_told_in_the_words_of_the_job_api(record: JobRecord, document: dict[str, Any]) -> None:
    expected = {"id": "job", "status": record.status.value, **document}
    assert orjson.loads(job_document("job", record)) == expected


def test_only_workers_that_gave_a_sign_of_life_are_counted() -> None:
    now = 100_000
    words = {
        "loading": WorkerWord(now - 1000, ready=False, in_hand=0),
        "idle": WorkerWord(now - 2000, ready=True, in_hand=0),
        "busy": WorkerWord(now, ready=True, in_hand=3),
        "gone": WorkerWord(now - 20_000, ready=True, in_hand=2),
    }
    health = health_document({"COMPLETED": 7, "FAILED": 1, "TIMED_OUT": 2, "retried": 4}, words, now, 5)
    assert health["jobs"] == {"completed": 7, "failed": 3, "inProgress": 3, "inQueue": 5, "retried": 4}
    expected = {"idle": 1, "initializing": 1, "ready": 2, "running": 1, "throttled": 0, "unhealthy": 0}
    assert health["workers"] == expected
    assert {name: WorkerWord.read(word.written().encode()) for name, word in words.items()} == words
