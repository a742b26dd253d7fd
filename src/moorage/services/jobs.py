"""What a user can do with jobs, on every deployment alike.

Where replicas have an HTTP face the jobs are kept here. Where the provider takes jobs itself they pass
through to it, once the deployment serves; those that came before are kept here too, and run when it does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID

from moorage.domain.deployment import Deployment, Phase
from moorage.domain.identity import Permission, Principal
from moorage.domain.job import (
    Job,
    JobPayload,
    JobState,
    as_seen,
    cancelled,
    input_id,
    job_id,
    output_id,
)
from moorage.domain.job_request import NewJob, broken_job_rules, input_text, is_job_id, new_job
from moorage.domain.job_view import health_document, job_delivery, job_document, stream_document, ticket
from moorage.domain.notice import NewId
from moorage.domain.observation import Face
from moorage.errors import (
    Clash,
    Invalid,
    Malformed,
    NotFound,
    OutgoingRefused,
    StaleWrite,
    TooManyRequests,
    Unavailable,
)
from moorage.ports.outside import Clock, Outgoing, OutgoingAnswer, SecretBox
from moorage.ports.store import Insert, Store, Update, Write
from moorage.services.authorization import require
from moorage.services.idempotency import Answer, once
from moorage.signals import Signals, wait_for
from moorage.upstream_auth import UpstreamAuth, UpstreamAuthenticator

QUEUE_JOBS = 10_000  # that wait for one deployment
QUEUE_BYTES = 1 << 30
PURGED_AT_ONCE = 200
_OVER = (Phase.FAILED, Phase.DELETING, Phase.DELETED)
_TAKES_NONE = (*_OVER, Phase.STOPPING, Phase.STOPPED)
CALL_SECONDS = 30.0  # for a provider to answer, beyond the time that it was asked to wait


class JobApi(Protocol):
    """A provider's own job API."""

    async def call(
        self, method: str, url: str, auth: UpstreamAuth, body: bytes | None, timeout: float
    ) -> OutgoingAnswer:
        """The answer, which is JSON, whatever its status. Raises a Problem."""


@dataclass(frozen=True, slots=True)
class JobSurroundings:
    """What the jobs service needs from outside."""

    store: Store
    box: SecretBox
    auth: UpstreamAuthenticator
    api: JobApi
    outgoing: Outgoing
    clock: Clock
    new_id: NewId
    new_uuid: Callable[[], UUID]
    signals: Signals
    public_url: str
    on_queued: Callable[[Job], None]  # a new one: wakes the runner
    on_over: Callable[[Job], None]  # a job that was cancelled: its run is interrupted, its webhook sent


class Jobs:
    """Answers are JSON in the job API's own words. `deployment` is an id or a name of the organization's."""

    def __init__(self, surroundings: JobSurroundings) -> None:
        self._out = surroundings

    # -- asking -----------------------------------------------------------------------------------------

    async def run(
        self, principal: Principal, deployment: str, request: NewJob, key: str | None, fingerprint: str
    ) -> Answer:
        """Accepts the job, and answers before it has begun."""
        require(principal, Permission.INFER)
        found = await self._deployment(principal, deployment)
        if _passes_through(found):
            return await self._pass_new(found, "run", request, key, fingerprint)
        return await self._accept(found, request, key, fingerprint, sync=False)

    async def run_and_wait(
        self,
        principal: Principal,
        deployment: str,
        request: NewJob,
        seconds: float,
        key: str | None,
        fingerprint: str,
    ) -> Answer:
        """Answers with the result if there is one within `seconds`, else as `run` does."""
        require(principal, Permission.INFER)
        found = await self._deployment(principal, deployment)
        if _passes_through(found):
            path = f"runsync?wait={seconds * 1000:.0f}"
            return await self._pass_new(found, path, request, key, fingerprint, seconds)
        accepted = await self._accept(found, request, key, fingerprint, sync=True)
        job = await self._waited_for(found, json.loads(accepted.body)["id"], seconds)
        if job is None:  # a repetition, whose result is no longer kept
            return accepted
        return Answer(200, await self._document(job), accepted.replayed)

    async def status(self, principal: Principal, deployment: str, id_: str) -> Answer:
        require(principal, Permission.INFER)
        found = await self._deployment(principal, deployment)
        job = await self._job(found, id_)
        if job is None:
            return await self._pass_job(found, "GET", "status", id_)
        return Answer(200, await self._document(job))

    async def stream(self, principal: Principal, deployment: str, id_: str, seconds: float) -> Answer:
        """The output, once; nothing before it is there. Waits `seconds` for it."""
        require(principal, Permission.INFER)
        found = await self._deployment(principal, deployment)
        if await self._job(found, id_) is None:
            return await self._pass_job(found, "GET", "stream", id_, seconds)
        job = await self._waited_for(found, id_, seconds)
        if job is None:
            raise _no_job(id_)
        output = None
        if job.state is JobState.COMPLETED and not job.drained and await self._drain(job):
            output = await self._output(job)
        return Answer(200, stream_document(job, output).encode())

    async def health(self, principal: Principal, deployment: str) -> Answer:
        require(principal, Permission.INFER)
        found = await self._deployment(principal, deployment)
        if _passes_through(found):
            return await self._pass(found, "GET", "health")
        counts = await self._out.store.job_counts(found.id)
        return Answer(200, health_document(counts, found.status.replicas).encode())

    # -- ending -----------------------------------------------------------------------------------------

    async def cancel(self, principal: Principal, deployment: str, id_: str) -> Answer:
        """A run under way is stopped. What is over stays as it is."""
        require(principal, Permission.INFER)
        found = await self._deployment(principal, deployment)
        while True:
            job = await self._job(found, id_)
            if job is None:
                return await self._pass_job(found, "POST", "cancel", id_)
            if job.state.final or await self._cancelled(job):
                now = job if job.state.final else cancelled(job, self._out.clock.now())
                return Answer(200, ticket(now).encode())

    async def purge(self, principal: Principal, deployment: str) -> Answer:
        """Cancels what is in the queue; what runs goes on."""
        require(principal, Permission.INFER)
        found = await self._deployment(principal, deployment)
        removed = 0
        while jobs := await self._out.store.queued_jobs(found.id, PURGED_AT_ONCE):
            removed += sum(await asyncio.gather(*(self._cancelled(job) for job in jobs)))
        if _passes_through(found):
            return await self._pass(found, "POST", "purge-queue")
        return Answer(200, json.dumps({"removed": removed, "status": "completed"}).encode())

    # -- jobs kept here ---------------------------------------------------------------------------------

    async def _accept(
        self, deployment: Deployment, request: NewJob, key: str | None, fingerprint: str, *, sync: bool
    ) -> Answer:
        out = self._out
        job: Job | None = None

        async def make() -> tuple[Sequence[Write], int, bytes]:
            nonlocal job
            text = await self._checked(deployment, request)
            id_ = job_id(out.new_uuid(), sync=sync)
            job = new_job(id_, deployment, request, len(text), out.clock.now(), sync=sync)
            writes = [Insert(job), Insert(JobPayload(input_id(id_), text))]
            return writes, 200, ticket(job).encode()

        organization_id = deployment.organization_id
        answer = await once(out.store, out.box, out.clock, organization_id, key, fingerprint, make)
        if job is not None and not answer.replayed:
            out.on_queued(job)
        return answer

    async def _checked(self, deployment: Deployment, request: NewJob) -> str:
        """The input as JSON text. Raises a Problem for what no deployment, or this one, can take."""
        errors = broken_job_rules(request)
        if errors:
            raise Invalid("; ".join(e.message for e in errors), errors=errors)
        if deployment.phase in _TAKES_NONE:
            raise Clash(
                f"The deployment {deployment.name!r} is {deployment.phase}; it takes no jobs.",
                code="deployment_over",
                advice="Start it, if it was stopped; deploy again, if it is over.",
            )
        try:
            text = input_text(deployment, request.input)
        except (ValueError, RecursionError) as error:
            message = "The input is not JSON that can be handed on."
            raise Malformed.at("body.input", "json", message, code="invalid_json") from error
        if request.webhook is not None:
            try:
                await self._out.outgoing.check(request.webhook)
            except OutgoingRefused as refused:
                raise Invalid.at("body.webhook", refused.rule, refused.detail) from refused
        backlog = await self._out.store.job_backlog(deployment.id)
        if backlog.jobs >= QUEUE_JOBS or backlog.bytes + len(text) > QUEUE_BYTES:
            raise TooManyRequests(
                f"{backlog.jobs} jobs with {backlog.bytes} bytes wait for this deployment.",
                code="queue_full",
                advice="Wait until some are done, or cancel them with POST /v2/…/purge-queue.",
                retry_after=5.0,
            )
        return text

    async def _job(self, deployment: Deployment, id_: str) -> Job | None:
        """One of this deployment that is kept here, as it is to be seen."""
        if not is_job_id(id_):
            raise _no_job(id_)
        job = await self._out.store.job(id_, deployment.organization_id)
        if job is None or job.deployment_id != deployment.id:
            return None
        seen = as_seen(job, self._out.clock.now())
        if seen is None:
            raise _no_job(id_)
        return seen

    async def _waited_for(self, deployment: Deployment, id_: str, seconds: float) -> Job | None:
        """The job when it is over, or as it is after `seconds`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        with self._out.signals.listen(id_) as changed:
            while True:
                changed.clear()
                job = await self._job(deployment, id_)
                if job is None or job.state.final or loop.time() >= end:
                    return job
                await wait_for(changed, end - loop.time())

    async def _document(self, job: Job) -> bytes:
        return job_document(job, await self._output(job)).encode()

    async def _output(self, job: Job) -> str | None:
        if job.state is not JobState.COMPLETED:
            return None
        payload = await self._out.store.job_payload(output_id(job.id))
        if payload is None:
            raise _no_job(job.id)  # forgotten between two looks
        return payload.text

    async def _drain(self, job: Job) -> bool:
        """Of several readers, one gets the output."""
        try:
            await self._out.store.commit([Update(replace(job, drained=True))])
        except StaleWrite:
            return False
        return True

    async def _cancelled(self, job: Job) -> bool:
        """False when it changed meanwhile."""
        out = self._out
        now = out.clock.now()
        after = cancelled(job, now)
        writes: list[Write] = [Update(after, release=True)]
        delivery = job_delivery(after, None, now, out.new_id, out.public_url)
        if delivery is not None:
            writes.append(Insert(delivery))
        try:
            await out.store.commit(writes)
        except StaleWrite:
            return False
        out.on_over(after)
        return True

    # -- jobs at a provider -----------------------------------------------------------------------------

    async def _pass_new(
        self,
        deployment: Deployment,
        path: str,
        request: NewJob,
        key: str | None,
        fingerprint: str,
        seconds: float = 0.0,
    ) -> Answer:
        """An answer is remembered once it is here: the provider knows no keys of ours."""
        out = self._out

        async def make() -> tuple[Sequence[Write], int, bytes]:
            answer = await self._pass(deployment, "POST", path, request.raw, seconds)
            if answer.status >= 300:
                raise _NotAccepted(answer)
            return (), answer.status, answer.body

        organization_id = deployment.organization_id
        try:
            return await once(out.store, out.box, out.clock, organization_id, key, fingerprint, make)
        except _NotAccepted as refused:
            return refused.answer

    async def _pass_job(
        self, deployment: Deployment, method: str, verb: str, id_: str, seconds: float = 0.0
    ) -> Answer:
        if not _passes_through(deployment):
            raise _no_job(id_) if _keeps_all(deployment) else _not_reached(deployment)
        return await self._pass(deployment, method, f"{verb}/{id_}", seconds=seconds)

    async def _pass(
        self,
        deployment: Deployment,
        method: str,
        path: str,
        body: bytes | None = None,
        seconds: float = 0.0,
    ) -> Answer:
        """The provider's own answer. `seconds` is what it was asked to wait."""
        url = f"{deployment.status.targets[0].rstrip('/')}/{path}"
        auth = await self._out.auth.auth(deployment.status.access, deployment.account)
        answer = await self._out.api.call(method, url, auth, body, seconds + CALL_SECONDS)
        if answer.status == 404:
            raise NotFound("The provider knows no such job.", code="job_not_found", advice=_KEPT)
        if answer.status == 429:
            after = answer.headers.get("retry-after", "")
            raise TooManyRequests(
                "The provider asks to slow down.",
                code="provider_rate_limit",
                retry_after=float(after) if after.isdecimal() else 5.0,
            )
        return Answer(answer.status, answer.body)

    async def _deployment(self, principal: Principal, key: str) -> Deployment:
        store, organization_id = self._out.store, principal.organization_id
        found = await store.deployment(key, organization_id)
        if found is None:
            found = await store.deployment_named(organization_id, key)
        if found is None:
            raise NotFound(
                "No deployment of this organization has that id or name.",
                code="deployment_not_found",
                advice="List the deployments with GET /v1/deployments.",
            )
        return found


class _NotAccepted(Exception):  # control flow, never seen outside
    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


_KEPT = "Results are kept for 30 minutes after the job's end, those of runsync for one."


def _passes_through(deployment: Deployment) -> bool:
    status = deployment.status
    return status.access.face is Face.JOBS and bool(status.targets)


def _keeps_all(deployment: Deployment) -> bool:
    """Whether no provider can have a job that is not here."""
    return deployment.status.access.face is not Face.JOBS or deployment.phase in _OVER


def _not_reached(deployment: Deployment) -> Unavailable:
    return Unavailable(
        f"The queue of {deployment.name!r} cannot be asked now.",
        code="queue_unreachable",
        advice="Ask again; start the deployment if it is stopped. The jobs in the queue are not lost.",
        retry_after=2.0,
    )


def _no_job(id_: str) -> NotFound:
    return NotFound(f"There is no job {id_[:128]!r}.", code="job_not_found", advice=_KEPT)
