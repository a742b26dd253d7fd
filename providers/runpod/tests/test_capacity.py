"""Pools without room, workers that die, models that are refused: each told apart, and nothing left behind."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from moorage.domain.model import ContainerImage
from moorage.domain.observation import ReplicaState, Trouble
from moorage.testing.provider_contract import until_absent
from moorage_runpod.testing import drift

from .conftest import CREDENTIALS, House
from .looking import until, until_ready, until_trouble
from .plans import plan

POOL = frozenset({"AMPERE_24"})


@pytest.mark.parametrize(
    ("fault", "counts"), [("throttled_pools", "1 throttled"), ("absent_pools", "no workers")]
)
@pytest.mark.parametrize("replicas", [1, 2])
async def test_no_room_is_told_after_the_patience_and_leaves_nothing(
    house: House, name: str, fault: str, counts: str, replicas: int
) -> None:
    setattr(house.fake.faults, fault, POOL)
    provider = house.provider(CAPACITY_SECONDS="0.3")
    handle = await provider.create(plan(replicas=replicas), name, CREDENTIALS)
    seen = await until_trouble(provider, handle)
    assert seen.trouble is Trouble.NO_CAPACITY
    assert "AMPERE_24 has given no worker for" in (seen.message or "")
    assert counts.replace("1", str(replicas)) in (seen.message or "")
    assert all(r.state is ReplicaState.STARTING for r in seen.replicas)
    assert seen.running == 0
    await until_absent(provider, handle, CREDENTIALS, 10)
    assert house.names() == []


async def test_room_that_comes_within_the_patience_is_used(house: House, name: str) -> None:
    house.fake.faults.throttled_pools = POOL
    provider = house.provider()
    handle = await provider.create(plan(), name, CREDENTIALS)
    _, handle = await until(provider, handle, lambda seen: seen.stage == "throttled")
    house.fake.faults.throttled_pools = frozenset()
    await until_ready(provider, handle)


async def test_patience_begins_with_the_warm_up_job(house: House, name: str) -> None:
    """An endpoint that nobody looked at for long had no reason to have workers."""
    provider = house.provider(CAPACITY_SECONDS="1")
    handle = await provider.create(plan(), name, CREDENTIALS)
    [endpoint] = house.fake.endpoints
    endpoint.created_at -= 3600
    house.fake.faults.throttled_pools = POOL
    seen = await provider.observe(handle, CREDENTIALS)
    assert seen.trouble is None
    house.fake.faults.throttled_pools = frozenset()
    await until_ready(provider, replace(handle, ref={**handle.ref, **(seen.ref or {})}))


async def test_a_worker_that_only_initialises_is_never_ready(house: House, name: str) -> None:
    house.fake.faults.never_ready = frozenset({name})
    provider = house.provider(CAPACITY_SECONDS="0.2")
    handle = await provider.create(plan(), name, CREDENTIALS)
    seen, handle = await until(provider, handle, lambda seen: seen.stage == "starting")
    assert seen.targets == ()
    house.fake.faults.never_ready = frozenset()
    seen, _ = await until_ready(provider, handle)
    assert seen.ref == {"proved": "1"}


@pytest.mark.parametrize("status", ["RUNNING", "THROTTLED", "UNHEALTHY"])
async def test_a_crash_loop_is_told_with_the_log(house: House, name: str, status: str) -> None:
    house.fake.faults.crash_loops = frozenset({name})
    house.fake.faults.crash_status = status
    provider = house.provider()
    handle = await provider.create(plan(), name, CREDENTIALS)
    seen = await until_trouble(provider, handle)
    assert seen.trouble is Trouble.CRASH_LOOP
    assert "ModuleNotFoundError: No module named 'weights'" in seen.log_tail
    await until_absent(provider, handle, CREDENTIALS, 10)


async def test_logs_that_are_refused_for_a_while_are_read_later(house: House, name: str) -> None:
    house.fake.faults.crash_loops = frozenset({name})
    house.fake.faults.unresolved_log_seconds = 0.5
    provider = house.provider()
    handle = await provider.create(plan(), name, CREDENTIALS)
    assert (await until_trouble(provider, handle)).trouble is Trouble.CRASH_LOOP
    assert any(r.status == 403 for r in house.fake.sent("GET /v2/serverless/{id}/workers/{workerId}/logs"))


class TestWarmUp:
    async def test_one_job_is_sent_and_looked_after(self, house: House, name: str) -> None:
        house.fake.simulated.load_seconds = 0.2
        provider = house.provider()
        handle = await provider.create(plan(), name, CREDENTIALS)
        first = await provider.observe(handle, CREDENTIALS)
        assert first.targets == ()
        [sent] = house.fake.sent("POST /v2/{endpoint}/run")
        assert sent.body["input"] == {"moorage": "warm_up"}
        await until_ready(provider, replace(handle, ref={**handle.ref, **(first.ref or {})}))
        assert len(house.fake.sent("POST /v2/{endpoint}/run")) == 1

    async def test_a_process_without_memory_sends_no_second(self, house: House, name: str) -> None:
        house.fake.simulated.load_seconds = 0.2
        handle = await house.provider().create(plan(), name, CREDENTIALS)
        await house.provider().observe(handle, CREDENTIALS)
        later = house.provider()
        found = await later.find(name, CREDENTIALS)
        assert found == handle
        await until(later, handle, lambda seen: bool(seen.targets))
        assert len(house.fake.sent("POST /v2/{endpoint}/run")) == 1

    async def test_one_that_was_cancelled_is_sent_again(self, house: House, name: str) -> None:
        house.fake.faults.throttled_pools = POOL
        provider = house.provider()
        handle = await provider.create(plan(), name, CREDENTIALS)
        _, handle = await until(provider, handle, lambda seen: "warm_up" in (seen.ref or {}))
        [endpoint] = house.fake.endpoints
        endpoint.queue.purge(house.fake.cloud.clock())
        house.fake.faults.throttled_pools = frozenset()
        await until_ready(provider, handle)
        assert len(house.fake.sent("POST /v2/{endpoint}/run")) == 2

    @pytest.mark.parametrize(
        ("status", "trouble"), [(503, Trouble.CRASH_LOOP), (403, Trouble.REJECTED), (422, Trouble.REJECTED)]
    )
    async def test_its_failure_is_told_in_the_workers_words(
        self, house: House, name: str, status: int, trouble: Trouble
    ) -> None:
        provider = house.provider()
        handle = await provider.create(plan(), name, CREDENTIALS)
        self.refuse_warm_ups(house, {"status": status, "title": "No", "detail": "acme/painter is gated"})
        seen = await until_trouble(provider, handle)
        assert seen.trouble is trouble
        assert "acme/painter is gated" in (seen.message or "")

    async def test_an_image_of_the_owners_own_answers_by_refusing(self, house: House, name: str) -> None:
        provider = house.provider()
        handle = await provider.create(plan(ContainerImage("acme/own:1")), name, CREDENTIALS)
        self.refuse_warm_ups(house, {"error_type": "KeyError", "error_message": "'prompt'"})
        seen, _ = await until_ready(provider, handle)
        assert seen.ref == {"proved": "1"}

    @staticmethod
    def refuse_warm_ups(house: House, problem: dict[str, object]) -> None:
        """The simulated worker answers warm-ups itself; here its queue fails them in a worker's name."""
        queue = house.fake.endpoints[0].queue
        report = queue.report

        def fail(worker: str, job: str, told: object, now: float) -> None:
            report(worker, job, {"error": json.dumps(problem)}, now)

        queue.report = fail  # type: ignore[assignment,method-assign]  # the one endpoint of this test


class TestServing:
    async def test_a_look_costs_one_call_of_rest(self, house: House, name: str) -> None:
        provider = house.provider()
        handle = await provider.create(plan(), name, CREDENTIALS)
        _, handle = await until_ready(provider, handle)
        before = len(house.fake.requests)
        await provider.observe(handle, CREDENTIALS)
        looked = [r.name for r in house.fake.requests[before:]]
        assert looked == ["GET /v2/serverless/{id}", "GET /v2/{endpoint}/health"]

    async def test_it_serves_without_workers_and_says_what_runs(self, house: House, name: str) -> None:
        provider = house.provider(IDLE_TIMEOUT_SECONDS="1")
        handle = await provider.create(plan(), name, CREDENTIALS)
        _, handle = await until_ready(provider, handle)
        await house.fake.endpoints[0].changes.until(lambda: not house.fake.cloud.running_workers or None, 5)
        seen = await provider.observe(handle, CREDENTIALS)
        assert len(seen.targets) == 1
        assert seen.running == 0

    async def test_throttled_afterwards_is_no_reason_to_leave(self, house: House, name: str) -> None:
        provider = house.provider(CAPACITY_SECONDS="0.05")
        house.fake.faults.throttled_pools = frozenset()
        handle = await provider.create(plan(), name, CREDENTIALS)
        _, handle = await until_ready(provider, handle)
        house.fake.faults.throttled_pools = POOL
        assert (await provider.observe(handle, CREDENTIALS)).trouble is None

    async def test_drift_is_told_and_put_back(self, house: House, name: str) -> None:
        provider = house.provider()
        handle = await provider.create(plan(), name, CREDENTIALS)
        seen, handle = await until_ready(provider, handle)
        assert seen.drift is None
        assert drift(house.fake.cloud, name, 0)
        seen = await provider.observe(handle, CREDENTIALS)
        assert seen.drift == "workers_max was 3 and is 0 at RunPod"
        await provider.apply(handle, plan(), CREDENTIALS)
        assert (await provider.observe(handle, CREDENTIALS)).drift is None
        assert house.fake.endpoints[0].spec.workers_max == 3

    async def test_nothing_is_sent_when_nothing_differs(self, house: House, name: str) -> None:
        provider = house.provider()
        handle = await provider.create(plan(SHAPE="round"), name, CREDENTIALS)
        await provider.apply(handle, plan(SHAPE="round"), CREDENTIALS)
        assert house.fake.sent("PATCH /v2/serverless/{id}") == []
        await provider.apply(handle, plan(SHAPE="square"), CREDENTIALS)
        [sent] = house.fake.sent("PATCH /v2/serverless/{id}")
        assert set(sent.body) == {"env"}
        assert house.fake.endpoints[0].spec.env["SHAPE"] == "square"
