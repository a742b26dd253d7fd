"""What the gateway answers when no model's answer can be given: RFC 9457 problem documents on raw ASGI."""

from __future__ import annotations

import math
from collections.abc import Iterable

import orjson

from moorage.domain.deployment import Phase
from moorage.errors import Clash, Problem, Unavailable
from moorage.gateway.asgi import Send
from moorage.gateway.routes import Route


class GatewayTimeout(Problem):
    status, code, title = 504, "upstream_timeout", "The model did not answer in time"


class RequestTimeout(Problem):
    status, code, title = 408, "request_timeout", "The request did not arrive in time"


class MethodNotAllowed(Problem):
    status, code, title = 405, "method_not_allowed", "Method not allowed"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        super().__init__(f"The method {method[:32]!r} is not forwarded.")
        self.allowed = ", ".join(sorted(allowed))


# phases that end by themselves: for these it makes sense to come back, and after how many seconds
_RETRY_AFTER = {
    Phase.VALIDATING: 10.0,
    Phase.SELECTING_GPU: 10.0,
    Phase.CREATING_ENDPOINT: 10.0,
    Phase.LOADING_MODEL: 5.0,
    Phase.WAKING: 5.0,
    Phase.UPDATING: 2.0,
    Phase.READY: 2.0,
}


class NotServing(Unavailable):
    """The deployment is known and has no replica that answers; its phase says whether waiting helps."""

    def __init__(self, route: Route, detail: str, *, code: str, retry_after: float | None = None) -> None:
        retry_after = _RETRY_AFTER.get(route.phase) if retry_after is None else retry_after
        advice = (
            "Try again after the time in Retry-After."
            if retry_after is not None
            else f"See GET /v1/deployments/{route.deployment_id} for what to do."
        )
        super().__init__(detail, code=code, advice=advice, retry_after=retry_after)
        self.route = route

    @classmethod
    def no_targets(cls, route: Route) -> NotServing:
        detail = f"The deployment {route.name!r} has no replica that answers; it is {route.phase}."
        return cls(route, detail, code="deployment_not_serving")

    @classmethod
    def still_asleep(cls, route: Route, waited: float, seconds_left: float) -> NotServing:
        detail = f"The deployment {route.name!r} slept, and was not awake within {waited:g} seconds."
        return cls(route, detail, code="deployment_waking", retry_after=seconds_left)

    @classmethod
    def unreachable(cls, route: Route) -> NotServing:
        count = len(route.targets)
        detail = (
            f"None of the {count} replicas of the deployment {route.name!r} accepts connections; "
            f"it is {route.phase}."
        )
        return cls(route, detail, code="replicas_unreachable")


class JobsOnly(Clash):
    """The deployment's replicas take jobs, and have no other paths."""

    def __init__(self, route: Route) -> None:
        super().__init__(
            f"The replicas of the deployment {route.name!r} take jobs; they have no paths of their own.",
            code="replicas_take_jobs",
            advice=f"Send requests to POST /v1/models/{route.deployment_id}/infer.",
        )


def document(problem: Problem, request_id: str) -> dict[str, object]:
    """The problem as JSON members; `deployment` is an extension that names who could not answer."""
    members = {**problem.members(), "request_id": request_id}
    if isinstance(problem, NotServing):
        members["deployment"] = {"id": problem.route.deployment_id, "phase": problem.route.phase}
    return members


async def send_problem(send: Send, problem: Problem, request_id: str) -> int:
    """Answers with the problem; returns the bytes of its body.

    A body that was not read does not end the connection: closing it with data unread resets it, and the
    caller would lose the answer. The server discards the rest. A body that never comes does end it.
    """
    body = orjson.dumps(document(problem, request_id))
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode("ascii")),
    ]
    if problem.retry_after is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(problem.retry_after)))
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(problem, MethodNotAllowed):
        headers.append((b"allow", problem.allowed.encode("ascii")))
    if isinstance(problem, RequestTimeout):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    return len(body)
