"""The service of jobs in one process, the runner in another: what they say to each other goes through the
store alone."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from uuid import uuid4

import pytest
from aiohttp import web

from moorage.adapters.secrets import KeyRing
from moorage.credentials import Vault
from moorage.domain.deployment import Phase
from moorage.domain.identity import Principal, Role
from moorage.domain.job import JobState
from moorage.domain.job_request import NewJob
from moorage.ports.outside import OutgoingAnswer
from moorage.ports.store import Insert
from moorage.services.jobs import Jobs, JobSurroundings
from moorage.signals import Signals
from moorage.testing.store import MemoryStore
from moorage.testing.store_rows import deployment as deployment_row
from moorage.upstream_auth import UpstreamAuth, UpstreamAuthenticator

from .conftest import Worker, Yard

USER = Principal("usr", "org", Role.INVOKER)


class Nowhere:
    """Neither a provider nor a webhook's receiver is asked for anything here."""

    async def call(
        self, method: str, url: str, auth: UpstreamAuth, body: bytes | None, timeout: float
    ) -> OutgoingAnswer:
        raise AssertionError(url)

    async def check(self, url: str) -> None:
        raise AssertionError(url)

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float
    ) -> OutgoingAnswer:
        raise AssertionError(url)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> OutgoingAnswer:
        raise AssertionError(url)


class Desk:
    """A process that takes requests and runs no jobs. It hears of others' writes, as every process does."""

    def __init__(self, yard: Yard) -> None:
        self.store = MemoryStore(yard.memory)
        self.signals = Signals()
        box = KeyRing([("k", secrets.token_bytes(32))])
        self.jobs = Jobs(
            JobSurroundings(
                self.store,
                box,
                UpstreamAuthenticator(Vault(self.store, box, yard.clock).open),
                Nowhere(),
                Nowhere(),
                yard.clock,
                yard.new_id,
                uuid4,
                self.signals,
                "http://here",
                lambda job: None,
                lambda job: self.signals.notify(job.id),
            )
        )

    async def follow(self) -> None:
        async for _ in self.store.changes():
            self.signals.notify_all()


@pytest.fixture
async def desk(yard: Yard) -> Desk:
    await yard.store.commit([Insert(replace(deployment_row(1, "org", Phase.READY), id="dep", name="digits"))])
    return Desk(yard)


async def for_ever(request: web.Request, body: object) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def queue(desk: Desk) -> str:
    answer = await desk.jobs.run(USER, "digits", NewJob({"inputs": 1}), None, "")
    id_: str = json.loads(answer.body)["id"]
    return id_


async def test_a_cancel_here_interrupts_the_run_there(yard: Yard, worker: Worker, desk: Desk) -> None:
    worker.script = for_ever
    await yard.start("dep")
    kept, gone = await queue(desk), await queue(desk)
    await worker.until(lambda worker: worker.busy == 2)
    answer = await desk.jobs.cancel(USER, "digits", gone)
    assert json.loads(answer.body) == {"id": gone, "status": "CANCELLED"}
    await worker.until(lambda worker: worker.left == 1)
    assert (await yard.job(kept)).state is JobState.IN_PROGRESS


async def test_who_waits_here_hears_of_the_end_there(yard: Yard, desk: Desk) -> None:
    following = asyncio.create_task(desk.follow())
    await yard.start("dep")
    async with asyncio.timeout(10):
        answer = await desk.jobs.run_and_wait(USER, "dep", NewJob({"inputs": 1}), 60.0, None, "")
    assert json.loads(answer.body)["output"] == {"outputs": {"inputs": 1}}
    following.cancel()


async def test_an_output_is_drained_by_one_of_many_readers(yard: Yard, desk: Desk) -> None:
    await yard.start("dep")
    id_ = await queue(desk)
    await yard.ended(id_)
    answers = await asyncio.gather(*(desk.jobs.stream(USER, "dep", id_, 1.0) for _ in range(10)))
    assert sum(len(json.loads(answer.body)["stream"]) for answer in answers) == 1


async def test_a_purge_takes_what_waits_and_leaves_what_runs(yard: Yard, worker: Worker, desk: Desk) -> None:
    worker.script = for_ever
    await yard.start("dep")
    running = [await queue(desk) for _ in range(4)]
    await worker.until(lambda worker: worker.busy == 4)
    waiting = [await queue(desk) for _ in range(3)]
    assert json.loads((await desk.jobs.purge(USER, "dep")).body)["removed"] == 3
    assert {(await yard.job(id_)).state for id_ in waiting} == {JobState.CANCELLED}
    assert {(await yard.job(id_)).state for id_ in running} == {JobState.IN_PROGRESS}
