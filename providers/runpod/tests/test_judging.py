"""What is made of what RunPod shows: above all, that nothing is called ready before a worker has answered."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.observation import Access, Face, Observation, ReplicaState, Trouble
from moorage_runpod.answers import answered, complaint, lost
from moorage_runpod.crashes import crash_in
from moorage_runpod.judging import Sight, billed, judge, proof, suspects
from moorage_runpod.wire import Endpoint, Health, Job, JobCounts, Worker, WorkerCounts

PATIENCE = 120.0
AT = datetime(2026, 11, 21, tzinfo=UTC)
QUEUE_URL = "https://api.runpod.ai/v2/e1"
REF = {"warm_up": "j1", "since": AT.isoformat()}
STATUSES = ["RUNNING", "IDLE", "INITIALIZING", "THROTTLED", "UNHEALTHY"]


def endpoint(*, least: int = 0, most: int = 3, balanced: bool = False) -> Endpoint:
    urls = (
        {"base": "https://e1.api.runpod.ai", "health": "https://e1.api.runpod.ai/ping"}
        if balanced
        else {name: f"{QUEUE_URL}/{name.lower()}" for name in ("run", "runSync", "status", "health")}
    )
    return Endpoint.model_validate(
        {
            "id": "e1",
            "name": "mrg-x",
            "requestUrls": urls,
            "env": {"MOORAGE_WORKERS_MAX": "3"},
            "gpu": {"pools": ["AMPERE_24"], "count": 1},
            "workers": {"min": least, "max": most},
            "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
            "timeout": 1,
            "flashboot": "OFF",
            "createdAt": AT.isoformat(),
        }
    )


def worker(id_: str, status: str, *, placed: bool = True, started: datetime | None = None) -> Worker:
    return Worker(id=id_, status=status, gpu_type_id="NVIDIA L4" if placed else None, started_at=started)


def health(running: int = 0, **jobs: int) -> Health:
    return Health(jobs=JobCounts(**jobs), workers=WorkerCounts(running=running))


def job(status: str, error: object = None) -> Job:
    return Job.model_validate({"id": "j1", "status": status, "error": error})


def sight(*workers: Worker, least: int = 0, balanced: bool = False, **more: object) -> Sight:
    there = endpoint(least=least, balanced=balanced)
    base = Sight(there, QUEUE_URL, own_image=True, proved=False, workers=workers, ref=REF)
    return replace(base, **more)  # type: ignore[arg-type]  # fields by name, checked at run time


def look(*workers: Worker, **more: object) -> Observation:
    return judge(sight(*workers, **more), PATIENCE)  # type: ignore[arg-type]  # as above


class TestProof:
    def test_an_answered_job_proves(self) -> None:
        seen = look(worker("a", "IDLE"), warm_up=job("COMPLETED"), health=health())
        assert seen.targets == (QUEUE_URL,)
        assert seen.ref == {"proved": "1"}
        assert seen.access == Access(Face.JOBS, "api_key")
        assert [r.id for r in seen.replicas] == ["e1"]

    def test_completed_jobs_prove_without_any_memory(self) -> None:
        assert proof(sight(health=health(completed=1)))

    def test_failed_jobs_of_the_counts_prove_nothing(self) -> None:
        assert not proof(sight(health=health(failed=3), own_image=False))

    def test_a_ping_proves_a_load_balancer(self) -> None:
        seen = look(balanced=True, ping=200)
        assert seen.access == Access(Face.HTTP, "api_key")
        assert len(seen.targets) == 1
        for status in (None, 204, 404, 502):
            assert look(balanced=True, ping=status).targets == ()

    def test_a_proved_endpoint_serves_with_no_worker_at_all(self) -> None:
        seen = judge(sight(proved=True, workers=None, health=health(running=0), waited=9999.0), PATIENCE)
        assert seen.trouble is None
        assert (seen.targets, seen.running) == ((QUEUE_URL,), 0)

    @given(
        statuses=st.lists(st.sampled_from(STATUSES), max_size=4),
        least=st.integers(0, 2),
        balanced=st.booleans(),
        waited=st.floats(0, 1000),
        status=st.sampled_from([None, "IN_QUEUE", "IN_PROGRESS", "FAILED", "TIMED_OUT", "CANCELLED"]),
        placed=st.booleans(),
        log=st.lists(st.sampled_from(["worker exited with exit code 1", "loading", "ok"]), max_size=5),
    )
    def test_nothing_is_ready_without_an_answer(
        self,
        statuses: list[str],
        least: int,
        balanced: bool,
        waited: float,
        status: str | None,
        placed: bool,
        log: list[str],
    ) -> None:
        workers = [worker(f"w{i}", s, placed=placed) for i, s in enumerate(statuses)]
        warm_up = None if status is None or balanced else job(status)
        seen = look(
            *workers,
            least=least,
            balanced=balanced,
            waited=waited,
            warm_up=warm_up,
            log=tuple(log),
            health=None if balanced else health(in_queue=1),
            ping=204 if balanced else None,
        )
        assert seen.targets == ()
        assert all(r.state is ReplicaState.STARTING for r in seen.replicas)
        assert "proved" not in (seen.ref or {})
        assert seen.trouble is None or seen.message
        if any(s in ("RUNNING", "IDLE") for s in statuses):
            assert seen.trouble is not Trouble.NO_CAPACITY


class TestReplicas:
    def test_one_stands_for_an_endpoint_that_scales_to_zero(self) -> None:
        seen = look(worker("a", "RUNNING"), worker("b", "IDLE"), warm_up=job("COMPLETED"))
        assert len(seen.replicas) == 1

    def test_one_for_each_worker_where_some_are_kept(self) -> None:
        workers = [worker(s, s) for s in STATUSES]
        seen = look(*workers, least=2, proved=True)
        states = {r.id: r.state for r in seen.replicas}
        assert states == {
            "RUNNING": ReplicaState.READY,
            "IDLE": ReplicaState.READY,
            "INITIALIZING": ReplicaState.STARTING,
            "THROTTLED": ReplicaState.STARTING,
            "UNHEALTHY": ReplicaState.RESTARTING,
        }
        assert seen.targets == (QUEUE_URL, QUEUE_URL)

    @pytest.mark.parametrize(
        ("statuses", "least", "count"),
        [
            (["RUNNING", "RUNNING", "IDLE"], 0, 2),
            (["RUNNING", "IDLE", "IDLE"], 2, 2),
            (["INITIALIZING", "THROTTLED", "UNHEALTHY"], 2, 0),
            (["IDLE"], 3, 1),
        ],
    )
    def test_what_is_billed(self, statuses: list[str], least: int, count: int) -> None:
        assert billed([worker(str(i), s) for i, s in enumerate(statuses)], least) == count

    def test_drift_is_told_whether_it_serves_or_not(self) -> None:
        there = endpoint(most=0)
        for proved in (True, False):
            seen = judge(replace(sight(proved=proved), endpoint=there), PATIENCE)
            assert seen.drift == "workers_max was 3 and is 0 at RunPod"


class TestCapacity:
    def test_throttled_for_the_patience(self) -> None:
        workers = (worker("a", "THROTTLED", placed=False), worker("b", "THROTTLED", placed=False))
        assert look(*workers, waited=119.0, health=health(in_queue=1)).trouble is None
        seen = look(*workers, waited=121.0, health=health(in_queue=1))
        assert seen.trouble is Trouble.NO_CAPACITY
        assert seen.message == "AMPERE_24 has given no worker for 121 s: 2 throttled, 1 jobs waiting"

    def test_no_worker_appears(self) -> None:
        seen = look(waited=121.0, health=health(in_queue=1))
        assert seen.trouble is Trouble.NO_CAPACITY
        assert "no workers" in (seen.message or "")

    def test_initializing_without_a_machine_is_waiting_too(self) -> None:
        seen = look(worker("a", "INITIALIZING", placed=False), waited=121.0)
        assert seen.trouble is Trouble.NO_CAPACITY
        assert look(worker("a", "INITIALIZING"), waited=121.0).trouble is None

    def test_a_job_that_was_taken_has_capacity(self) -> None:
        throttled = worker("a", "THROTTLED", placed=False)
        assert look(throttled, waited=999.0, warm_up=job("IN_PROGRESS")).trouble is None
        assert look(throttled, waited=999.0, health=health(in_progress=1)).trouble is None

    def test_too_few_of_those_that_are_kept(self) -> None:
        one, other = worker("a", "IDLE"), worker("b", "THROTTLED", placed=False)

        def seen(*workers: Worker, waited: float) -> Observation:
            return look(*workers, waited=waited, least=2, warm_up=job("COMPLETED"))

        early = seen(one, other, waited=60.0)
        assert (early.trouble, len(early.targets), early.ref) == (None, 1, REF)
        late = seen(one, other, waited=121.0)
        assert late.trouble is Trouble.NO_CAPACITY
        assert late.message == "AMPERE_24 has given 1 of 2 workers in 121 s: 1 idle, 1 throttled"
        assert seen(one, worker("b", "INITIALIZING"), waited=121.0).trouble is None

    def test_one_lost_after_all_were_there_is_no_reason_to_leave(self) -> None:
        both = (worker("a", "IDLE"), worker("b", "RUNNING"))
        assert look(*both, least=2, warm_up=job("COMPLETED")).ref == {"proved": "1"}
        seen = look(worker("a", "THROTTLED", placed=False), least=2, proved=True, waited=999.0)
        assert (seen.trouble, seen.ref) == (None, {"proved": "1"})

    def test_stages(self) -> None:
        assert look().stage == "queued"
        assert look(worker("a", "THROTTLED")).stage == "throttled"
        assert look(worker("a", "INITIALIZING")).stage == "starting"
        assert look(worker("a", "RUNNING")).stage == "loading"


class TestCrashes:
    LOG = ("Traceback …", "ModuleNotFoundError: No module named 'weights'", "worker exited with exit code 1")

    @pytest.mark.parametrize("status", ["RUNNING", "THROTTLED", "INITIALIZING"])
    def test_the_log_is_believed_and_the_status_is_not(self, status: str) -> None:
        seen = look(worker("a", status), log=self.LOG * 2, waited=999.0)
        assert seen.trouble is Trouble.CRASH_LOOP
        assert seen.log_tail[-1] == "worker exited with exit code 1"

    def test_one_end_is_no_loop(self) -> None:
        assert look(worker("a", "RUNNING"), log=self.LOG).trouble is None

    def test_unhealthy_workers_and_no_others(self) -> None:
        assert look(worker("a", "UNHEALTHY")).trouble is Trouble.CRASH_LOOP
        assert look(worker("a", "UNHEALTHY"), worker("b", "INITIALIZING")).trouble is None

    def test_the_log_goes_before_lack_of_capacity(self) -> None:
        seen = look(worker("a", "THROTTLED", placed=False), log=self.LOG * 2, waited=999.0)
        assert seen.trouble is Trouble.CRASH_LOOP

    @pytest.mark.parametrize(
        ("lines", "found"),
        [
            (["worker exited with exit code 0"] * 5, None),
            (["container exited with code 137", "killed", "container exited with code 137"], "again"),
            (["--- Starting Serverless Worker |  Version 1.12.0 ---"] * 3, "again"),
            (["start container for x: begin", "--- Starting Serverless Worker ---"] * 2, None),
            (["CUDA out of memory", "exited with exit code 1", "exited with exit code 1"], "out of memory"),
            (["error pulling image: manifest for acme/x not found"] * 2, "cannot be pulled"),
            (["loading", "ready"], None),
            ([], None),
        ],
    )
    def test_signs(self, lines: list[str], found: str | None) -> None:
        crash = crash_in(lines)
        assert (crash is None) == (found is None)
        assert crash is None or (found or "") in crash.message

    def test_an_image_that_cannot_be_pulled_is_rejected(self) -> None:
        seen = look(worker("a", "INITIALIZING"), log=("pull access denied for acme/x",) * 2)
        assert seen.trouble is Trouble.REJECTED

    def test_whose_log_is_read(self) -> None:
        early, late = AT, AT.replace(hour=1)
        workers = [
            worker("new", "RUNNING", started=late),
            worker("old", "THROTTLED", started=early),
            worker("never", "THROTTLED"),
            worker("sick", "UNHEALTHY"),
        ]
        assert [w.id for w in suspects(workers)] == ["sick", "old", "new"]


class TestWarmUp:
    PROBLEM = json.dumps({"status": 503, "title": "Model failed", "detail": "weights are broken"})
    GATED = json.dumps({"status": 403, "title": "Gated", "detail": "acme/x is gated"})

    def test_its_failure_is_told_in_its_words(self) -> None:
        seen = look(worker("a", "IDLE"), warm_up=job("FAILED", self.PROBLEM))
        assert seen.trouble is Trouble.CRASH_LOOP
        assert seen.message == "the worker could not get ready: weights are broken"

    def test_a_refused_model_is_rejected(self) -> None:
        assert look(warm_up=job("FAILED", self.GATED)).trouble is Trouble.REJECTED

    @pytest.mark.parametrize(
        ("error", "words", "rejected"),
        [
            (PROBLEM, "weights are broken", False),
            (GATED, "acme/x is gated", True),
            (json.dumps({"error_type": "X", "error_message": GATED}), "acme/x is gated", True),
            (json.dumps({"error_type": "KeyError", "error_message": "'prompt'"}), "'prompt'", False),
            ({"detail": "told as an object", "status": 422}, "told as an object", True),
            ("job timed out after 1 retries", "job timed out after 1 retries", False),
            (None, "no reason was given", False),
        ],
    )
    def test_words(self, error: object, words: str, rejected: bool) -> None:
        told = complaint(job("FAILED", error))
        assert (told.words, told.rejected) == (words, rejected)

    def test_the_handler_of_an_image_of_ones_own_answers_by_refusing(self) -> None:
        refused = job("FAILED", json.dumps({"error_type": "KeyError", "error_message": "'prompt'"}))
        assert answered(refused, own_image=False)
        assert not answered(refused, own_image=True)
        assert not answered(job("FAILED", "job timed out after 1 retries"), own_image=False)

    def test_what_must_be_sent_again(self) -> None:
        assert lost(None)
        assert lost(job("TIMED_OUT"))
        assert lost(job("CANCELLED"))
        assert not lost(job("IN_QUEUE"))
        assert not lost(job("FAILED"))
