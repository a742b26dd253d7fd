"""What a user may ask of a job, rule by rule, and the form in which a model gets it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from moorage.domain.deployment import Deployment
from moorage.domain.job import EXECUTION_SECONDS, TTL_SECONDS, Job, JobPolicy
from moorage.domain.model import HubModel
from moorage.errors import FieldError

_ID = re.compile(r"[A-Za-z0-9-]{1,128}")


@dataclass(frozen=True, slots=True)
class NewJob:
    """Times in milliseconds, as the job API has them. `raw` is the request's body as it came, for providers
    that take jobs themselves; `s3_config` says that it has an `s3Config`, which only they understand."""

    input: object = field(repr=False)
    raw: bytes = field(default=b"", repr=False)
    webhook: str | None = None
    execution_timeout: int | None = None
    ttl: int | None = None
    low_priority: bool = False
    s3_config: bool = False

    @property
    def policy(self) -> JobPolicy:
        default = JobPolicy()
        execution, ttl = self.execution_timeout, self.ttl
        return JobPolicy(
            default.execution_timeout if execution is None else execution / 1000,
            default.ttl if ttl is None else ttl / 1000,
            self.low_priority,
        )


def is_job_id(text: str) -> bool:
    """Whether it may be one, ours or a provider's. What is none goes into no URL."""
    return _ID.fullmatch(text) is not None


def broken_job_rules(request: NewJob) -> tuple[FieldError, ...]:
    return tuple(_broken(request))


def _broken(request: NewJob) -> Iterator[FieldError]:
    if request.input is None:
        yield FieldError("body.input", "missing", "The job needs an input.")
    for name, given, (least, most) in (
        ("executionTimeout", request.execution_timeout, EXECUTION_SECONDS),
        ("ttl", request.ttl, TTL_SECONDS),
    ):
        if given is not None and not least * 1000 <= given <= most * 1000:
            message = f"{name} is in milliseconds, from {least * 1000:.0f} to {most * 1000:.0f}."
            yield FieldError(f"body.policy.{name}", "range", message)
    if request.s3_config:
        yield FieldError(
            "body.s3Config",
            "provider_takes_jobs",
            'This deployment has no use for s3Config; give its model the parameter "result": "s3".',
        )


def new_job(
    id_: str, deployment: Deployment, request: NewJob, size: int, now: datetime, *, sync: bool
) -> Job:
    return Job(
        id=id_,
        organization_id=deployment.organization_id,
        deployment_id=deployment.id,
        created_at=now,
        sync=sync,
        policy=request.policy,
        size=size,
        webhook=request.webhook,
        due_at=now,
    )


def input_text(deployment: Deployment, value: object) -> str:
    """The input as the model gets it: ASCII JSON text. Our own workers understand `{"prompt": …}`, whose
    other members are parameters; what runs in somebody's image gets what was sent. Raises ValueError for what
    JSON cannot say, RecursionError for what is nested too deep."""
    if isinstance(deployment.spec.source, HubModel) and isinstance(value, dict):
        value = _canonical(value)
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _canonical(value: dict[str, object]) -> dict[str, object]:
    if "prompt" not in value or "inputs" in value:
        return value
    parameters = {name: member for name, member in value.items() if name != "prompt"}
    return {"inputs": value["prompt"], "parameters": parameters}
