"""Every error of the worker, on one screen.

`SettingsError` keeps the process from starting, `LoadFailed` ends it. The others are answers to one request:
each knows its HTTP status and a stable code, so that a face only has to write them in its own shape.
"""

from __future__ import annotations


class WorkerError(Exception):
    """Root of the tree."""


class LoadFailed(WorkerError):
    """The model cannot be served. The message is the cause, fit for the last line of the log."""


class SettingsError(WorkerError):
    """The environment asks for what cannot be; names the variable and the rule, never a secret's value."""

    def __init__(self, variable: str, message: str) -> None:
        super().__init__(f"{variable} {message}")
        self.variable = variable


class RequestError(WorkerError):
    """One request cannot be answered."""

    status = 500
    code = "internal_error"
    title = "Internal error"
    retry_after: int | None = None


class BadInput(RequestError):
    """The caller broke a rule.

    `field` is the path in the request body (`inputs.image`, `parameters.top_k`), `rule` its stable name,
    `message` what was expected and what came.
    """

    status, code, title = 422, "invalid_request", "Invalid request"

    def __init__(self, field: str, rule: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.rule = rule
        self.message = message


class MalformedBody(RequestError):
    """The body is not a JSON object."""

    status, code, title = 400, "malformed_request", "Malformed request"


class NoSuchModel(RequestError):
    """The path names a model that this process does not serve."""

    status, code, title = 404, "not_found", "Not found"


class NotReady(RequestError):
    """The model is still on its way; `stage` says where."""

    status, code, title = 503, "model_not_ready", "Model not ready"
    retry_after = 1

    def __init__(self, stage: str) -> None:
        super().__init__(f"the model is not ready yet: {stage}")
        self.stage = stage


class ModelUnavailable(RequestError):
    """The model could not be loaded, and this process will end for it."""

    status, code, title = 503, "model_failed_to_load", "Model failed to load"


class Busy(RequestError):
    """Too many requests wait already. `retry_after` is in whole seconds, from measured times."""

    status, code, title = 503, "worker_busy", "Worker busy"

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"{waiting} requests are running or waiting already; try again in {retry_after} s")
        self.retry_after = retry_after


class TooLarge(RequestError):
    """More than a queue should carry."""

    status, code, title = 413, "too_large", "Too large"


class NoSuchJob(RequestError):
    """Nobody has asked for it, or it is over for so long that it is forgotten."""

    status, code, title = 404, "job_not_found", "Not found"


class IdTaken(RequestError):
    """The id of a job comes again with another input."""

    status, code, title = 409, "id_taken", "Conflict"


class QueueUnavailable(RequestError):
    """RabbitMQ or Redis cannot take the request now. The message says which, without an address."""

    status, code, title = 503, "queue_unavailable", "Queue unavailable"
    retry_after = 5


class Cancelled(RequestError):
    """The caller took the request back while it ran, and the engine has stopped."""

    # Not in the HTTP standard; proxies log it for a caller that went away.
    status, code, title = 499, "cancelled", "Cancelled"

    def __init__(self) -> None:
        super().__init__("the request was cancelled")


class EngineFailed(RequestError):
    """The engine broke on an input that looked right. The message is its cause, in one line."""

    status, code, title = 500, "engine_failed", "Engine failed"


class ResultTooLarge(RequestError):
    """More than should be kept for a job."""

    status, code, title = 507, "result_too_large", "Result too large"


class TookTooLong(RequestError):
    """The job has a limit of its own."""

    status, code, title = 504, "job_timed_out", "Job timed out"


class WorkersLost(RequestError):
    """The job was begun so often, and each time the worker died before it ended."""

    status, code, title = 500, "workers_lost", "Workers lost"


def cause_line(error: BaseException) -> str:
    """An exception as one line: its type unless it is ours, and its message without line breaks."""
    text = " ".join(str(error).split())
    if isinstance(error, WorkerError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
