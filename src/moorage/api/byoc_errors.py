"""Refusals in the shape that the BYOC document shows, word for word where it has words.

Wrong input is 400: `{field: message}`, and `non_field_errors` for what is about the whole. Everything else is
`{"detail": message}` with its own status. What is below the surface names fields in its own words; here they
become the document's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any  # what the framework takes as documentation is untyped

from starlette.responses import Response

from moorage.api.byoc_schemas import FIXED, DetailDocument, InvalidDocument
from moorage.domain.workload_rules import LIMIT_BELOW_REQUEST, RESOURCES_POSITIVE
from moorage.errors import Clash, FieldError, Invalid, NotFound, Problem, Unauthenticated
from moorage.services.authentication import challenge

NAME_TAKEN = "Deployment with this name already exists for this organization."
NODE_GROUPS_EXPECTED = "List of node groups to be deployed on is expected"
REQUIRED = "This field is required."
NOT_FOUND = "Not found."

# Rules about several fields at once, or about none that was sent.
_OF_THE_WHOLE = {
    RESOURCES_POSITIVE,
    LIMIT_BELOW_REQUEST,
    "min_at_most_max",
    "fits_somewhere",
    "unique_in_organization",
}

# Where the inner words lie in the document's, the longest first.
_WORDS = {
    "workload.resources.cpu_request": "cpu_request",
    "workload.resources.cpu_limit": "cpu_limit",
    "workload.resources.memory_request": "memory_request",
    "workload.resources.memory_limit": "memory_limit",
    "workload.resources.gpus": "gpu_request",
    "workload.ports.http": "ports.http.port",
    "workload.ports.grpc": "ports.grpc.port",
    "workload.ports": "ports",
    "workload.health.initial_delay": "healthcheck.initialDelaySeconds",
    "workload.health.period": "healthcheck.periodSeconds",
    "workload.health.timeout": "healthcheck.timeoutSeconds",
    "workload.health": "healthcheck",
    "workload.entrypoint": "deployment_custom_configuration.entrypoint",
    "workload.command": "deployment_custom_configuration.command",
    "workload.working_dir": "deployment_custom_configuration.workingDir",
    "workload.volumes": "persistent_volume_claims",
    "workload.autoscale.cooldown_seconds": "autoscale_config.cooldown_period",
    "workload.autoscale": "autoscale_config",
    "workload.scale_to_zero": "scale_to_zero_enabled",
    "workload.queued.consumers": "advanced_configuration.runtime_overrides.consumer_count",
    "workload.queued": "async_deployment_type",
    "workload.grace_seconds": "advanced_configuration.runtime_overrides.termination_grace_period_seconds",
    "workload.secret_env": "secret_env_variables",
    "workload.tag": "deployment_tag",
    "env": "env_variables",
    "user_webhook_url": "webhook_url",
    "model_id": "model_repo",
    "node_groups": "nodegroups",
    "min_replicas": "min_pod_replicas",
    "max_replicas": "max_pod_replicas",
}
_INNER = re.compile("|".join(rf"\A{re.escape(word)}(?![a-z_])" for word in _WORDS))
_REPLICAS = re.compile(r"\b(min|max)_replicas\b")
_INDEX = re.compile(r"\.(\d+)(?=\.|$)")
_NO_LIST = {"missing", "too_short", "list_type"}


def answer(problem: Problem) -> Response:
    """Of any problem, in this surface's shape."""
    status, body = _told(problem)
    headers: dict[str, str] = {}
    if problem.retry_after is not None:
        headers["retry-after"] = str(math.ceil(problem.retry_after))
    if isinstance(problem, Unauthenticated):
        headers["www-authenticate"] = challenge(problem)
    # What the caller sent is quoted, and may hold half of a surrogate pair, which has no UTF-8.
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(text, status, headers, "application/json")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides success, for the OpenAPI document."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({401, 403, *statuses}):
        model = InvalidDocument if status == 400 else DetailDocument
        found[status] = {"description": _DESCRIPTIONS[status], "model": model}
    return found


_DESCRIPTIONS = {
    400: "A field breaks a rule, or the body is not JSON.",
    401: "No valid bearer token.",
    403: "The token's role may not do this.",
    404: "No deployment of that UUID in your organization.",
    409: "It contradicts what is stored.",
    413: "The body is larger than the service takes.",
    415: "The body is JSON, and must say so in Content-Type.",
    503: "Not now; see Retry-After.",
}


def _told(problem: Problem) -> tuple[int, dict[str, object]]:
    if isinstance(problem, Invalid) or problem.code == "name_taken":
        return 400, _by_field(problem)
    if isinstance(problem, NotFound):
        return 404, {"detail": NOT_FOUND}
    detail = problem.detail if problem.advice is None else f"{problem.detail} {problem.advice}"
    if isinstance(problem, Clash) and problem.code == "deployment_is_over":
        detail = problem.detail
    return problem.status, {"detail": detail}


def _by_field(problem: Problem) -> dict[str, object]:
    """One message a field; several about the same are joined."""
    of_the_whole: list[str] = []
    by_field: dict[str, list[str]] = {}
    for error in problem.errors:
        field, message = _in_our_words(error)
        messages = of_the_whole if field is None else by_field.setdefault(field, [])
        if message not in messages:
            messages.append(message)
    if not problem.errors:
        of_the_whole.append(problem.detail)
    whole = {"non_field_errors": of_the_whole} if of_the_whole else {}
    return {**whole, **{field: " ".join(messages) for field, messages in by_field.items()}}


def _in_our_words(error: FieldError) -> tuple[str | None, str]:
    """The documented field, None for the whole, and what is said of it."""
    message = _REPLICAS.sub(r"\1_pod_replicas", error.message)
    if error.rule == "unique_in_organization":
        return None, NAME_TAKEN
    if error.rule in _OF_THE_WHOLE:
        return None, message
    field, inner = _place(error.field)
    if field == "body":
        return None, message
    if field == "nodegroups" and not inner and error.rule in _NO_LIST:
        return field, NODE_GROUPS_EXPECTED
    message = " ".join(_reworded(error, field, inner, message))
    return field, f"{inner}: {message}" if inner else message


def _place(path: str) -> tuple[str, str]:
    """`body.workload.autoscale.targets[0].metric` is `autoscale_config` and `targets[0].metric`."""
    kind, _, rest = path.partition(".")
    if kind not in ("body", "query", "header", "path"):
        rest = path
    elif not rest:
        rest = kind
    rest = _INNER.sub(lambda match: _WORDS[match.group()], _INDEX.sub(r"[\1]", rest), count=1)
    match = re.match(r"[^.\[]+", rest)
    field = match.group() if match else rest
    return field, rest[len(field) :].lstrip(".")


def _reworded(error: FieldError, field: str, inner: str, message: str) -> Iterator[str]:
    if error.rule == "missing":
        yield REQUIRED
    elif error.rule == "unknown_field" and not inner and field in FIXED:
        yield FIXED[field]
    elif error.rule == "unknown_field" and field == "ports":
        yield "Only http and grpc protocols are supported."
    elif message.startswith("Input should be "):
        yield f"It must be {message.removeprefix('Input should be ').rstrip('.')}."
    else:
        yield message
