"""The job routes, in the words of RunPod's job API: its clients work here with nothing but another base URL.

Answers are written below this surface as JSON text, because an output may have megabytes and is passed on as
the model wrote it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any  # a model's inputs and outputs are its own

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StrictInt
from starlette.responses import Response

from moorage.api.context import Caller, IdempotencyKey, same_request, services
from moorage.api.json import as_answer
from moorage.api.problems import responses
from moorage.api.schemas import DEPLOYMENT_ID, Url
from moorage.domain.identity import Principal
from moorage.domain.job import RUN_BYTES, RUNSYNC_BYTES
from moorage.domain.job_request import NewJob

router = APIRouter(prefix="/v2/{deployment}", tags=["jobs"])

JOB_ID = "0f8fad5b-d9cb-469f-a165-70867728950e-u1"
_LIMITED = re.compile(r"/v2/[^/]+/(run|runsync)")
_OUTPUT: dict[str, Any] = {
    "model_id": "moorage/digits",
    "outputs": [{"label": "3", "score": 0.99}],
    "metadata": {"inference_time_ms": 0.4, "model_version": "0123abcd"},
}

Deployment = Annotated[str, Path(description="Deployment id or name.", examples=[DEPLOYMENT_ID])]
JobId = Annotated[str, Path(description="The id that `/run` answered.", examples=[JOB_ID])]
_Wait = Query(ge=1000, le=300_000, description="Milliseconds to wait for the end of the job.")


class JobPolicyDocument(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    execution_timeout: StrictInt | None = Field(
        None,
        alias="executionTimeout",
        description="Milliseconds that one run may take: 5,000 to 604,800,000.",
    )
    ttl: StrictInt | None = Field(
        None, description="Milliseconds from acceptance to the end at the latest: 10,000 to 604,800,000."
    )
    low_priority: bool = Field(False, alias="lowPriority", description="After all others of the queue.")


class JobRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"input": {"inputs": "A most agreeable harbour."}}]},
    )
    input: Any = Field(
        description='As the body of `/infer`: `{"inputs": …, "parameters": {…}}`; or `{"prompt": …}`, whose '
        "other members are parameters."
    )
    webhook: Url | None = Field(
        None, description="https; told of the job's end, as a signed message like those of deployments."
    )
    policy: JobPolicyDocument = JobPolicyDocument()
    s3_config: dict[str, Any] | None = Field(
        None, alias="s3Config", description="Only where the provider takes jobs itself."
    )

    def to_domain(self, raw: bytes) -> NewJob:
        return NewJob(
            self.input,
            raw,
            self.webhook,
            self.policy.execution_timeout,
            self.policy.ttl,
            self.policy.low_priority,
            self.s3_config is not None,
        )


class JobTicket(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"id": JOB_ID, "status": "IN_QUEUE"}]})
    id: str
    status: str = Field(
        description="`IN_QUEUE`, `IN_PROGRESS`, `COMPLETED`, `FAILED`, `CANCELLED` or `TIMED_OUT`."
    )


class JobDocument(JobTicket):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": JOB_ID,
                    "status": "COMPLETED",
                    "delayTime": 3,
                    "executionTime": 12,
                    "output": _OUTPUT,
                }
            ]
        }
    )
    delay_time: int | None = Field(None, alias="delayTime", description="Milliseconds in the queue.")
    execution_time: int | None = Field(None, alias="executionTime", description="Milliseconds of the run.")
    output: Any = Field(None, description="The model's answer, once it is `COMPLETED`.")
    error: str | None = Field(None, description="JSON text of a problem document, once it is `FAILED`.")
    retries: int | None = Field(None, description="Runs after one that had no end.")


class JobStream(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "COMPLETED", "stream": [{"output": _OUTPUT}]}]}
    )
    status: str
    stream: list[dict[str, Any]]


class JobHealth(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "jobs": {"completed": 7, "failed": 0, "inProgress": 1, "inQueue": 2, "retried": 0},
                    "workers": {
                        "idle": 0,
                        "initializing": 0,
                        "ready": 1,
                        "running": 1,
                        "throttled": 0,
                        "unhealthy": 0,
                    },
                }
            ]
        }
    )
    jobs: dict[str, int] = Field(description="Those that are kept.")
    workers: dict[str, int] = Field(description="Replicas.")


class Purged(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"removed": 2, "status": "completed"}]})
    removed: int
    status: str


def body_limit(path: str) -> int | None:
    """Bytes that a request for a job may have; None for paths of other routes."""
    found = _LIMITED.fullmatch(path)
    return None if found is None else (RUN_BYTES if found[1] == "run" else RUNSYNC_BYTES)


@router.post(
    "/run",
    response_model=JobTicket,
    summary="Queue a job",
    responses=responses(400, 403, 404, 409, 413, 415, 422, 429, 502, 503, 504),
)
async def run(
    request: Request,
    caller: Caller,
    deployment: Deployment,
    body: JobRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Kept until it has been answered, across restarts of this service: a job that was under way when a
    process or a replica died is run again, so the model may see it twice. The result is kept for 30
    minutes."""
    asked = body.to_domain(await request.body())
    same = await _same(request, caller, idempotency_key)
    return as_answer(await services(request).jobs.run(caller, deployment, asked, idempotency_key, same))


@router.post(
    "/runsync",
    response_model=JobDocument,
    response_model_exclude_none=True,
    summary="Run a job and wait for it",
    responses=responses(400, 403, 404, 409, 413, 415, 422, 429, 502, 503, 504),
)
async def runsync(
    request: Request,
    caller: Caller,
    deployment: Deployment,
    body: JobRequest,
    wait: Annotated[int, _Wait] = 90_000,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Answers with the result, or, when `wait` is over, with what `/run` would have answered. The result is
    kept for a minute."""
    asked = body.to_domain(await request.body())
    same = await _same(request, caller, idempotency_key)
    answer = await services(request).jobs.run_and_wait(
        caller, deployment, asked, wait / 1000, idempotency_key, same
    )
    return as_answer(answer)


@router.get(
    "/status/{job}",
    response_model=JobDocument,
    summary="Read a job",
    responses=responses(403, 404, 429, 502, 503, 504),
)
async def status(request: Request, caller: Caller, deployment: Deployment, job: JobId) -> Response:
    """How far it is, and its result."""
    return as_answer(await services(request).jobs.status(caller, deployment, job))


@router.get(
    "/stream/{job}",
    response_model=JobStream,
    summary="Read a job's output once",
    responses=responses(403, 404, 429, 502, 503, 504),
)
async def stream(
    request: Request,
    caller: Caller,
    deployment: Deployment,
    job: JobId,
    wait: Annotated[int, _Wait] = 10_000,
) -> Response:
    """Waits for the end; the output is one chunk, and given once. Of what a model says on the way nothing is
    known, except where the provider takes jobs itself."""
    return as_answer(await services(request).jobs.stream(caller, deployment, job, wait / 1000))


@router.post(
    "/cancel/{job}",
    response_model=JobTicket,
    summary="Cancel a job",
    responses=responses(403, 404, 429, 502, 503, 504),
)
async def cancel(request: Request, caller: Caller, deployment: Deployment, job: JobId) -> Response:
    """The run under way is stopped. A job that is over stays as it is; repeating is safe."""
    return as_answer(await services(request).jobs.cancel(caller, deployment, job))


@router.post(
    "/purge-queue",
    response_model=Purged,
    summary="Cancel all queued jobs",
    responses=responses(403, 404, 429, 502, 503, 504),
)
async def purge(request: Request, caller: Caller, deployment: Deployment) -> Response:
    """Of the deployment. What runs goes on."""
    return as_answer(await services(request).jobs.purge(caller, deployment))


@router.get(
    "/health",
    response_model=JobHealth,
    summary="Count jobs and replicas",
    responses=responses(403, 404, 429, 502, 503, 504),
)
async def health(request: Request, caller: Caller, deployment: Deployment) -> Response:
    """Of the deployment."""
    return as_answer(await services(request).jobs.health(caller, deployment))


async def _same(request: Request, caller: Principal, key: str | None) -> str:
    """Reading megabytes once more is worth it only for who asks."""
    return "" if key is None else await same_request(request, caller)
