"""What can go wrong for a command, and the exit code that tells a script which it was."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any  # a problem document is JSON


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1  # the deployment failed, or the service refused
    USAGE = 2
    NOT_FOUND = 3
    AUTH = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


class CliError(Exception):
    """Ends a command. `document` has the members of a problem document (RFC 9457), printed as they are."""

    def __init__(self, document: Mapping[str, Any], exit_code: ExitCode) -> None:
        super().__init__(document.get("detail", ""))
        self.document = dict(document)
        self.exit_code = exit_code


class ApiProblem(CliError):
    """The service said no."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__(document, exit_code_of(int(document.get("status", 0))))


class Unreachable(CliError):
    """Nothing that speaks HTTP answers there."""

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(
            {
                "title": "Cannot reach the service",
                "detail": f"Nothing answers at {url}: {cause}.",
                "code": "unreachable",
                "advice": "`moorage serve` starts a service here; --url or MOORAGE_URL names another one.",
            },
            ExitCode.UNREACHABLE,
        )


class Usage(CliError):
    """An argument that cannot be meant; nothing was sent."""

    def __init__(self, detail: str, advice: str | None = None) -> None:
        document = {"title": "Wrong usage", "detail": detail, "code": "usage", "advice": advice}
        super().__init__(document, ExitCode.USAGE)


class NotThere(CliError):
    """`kind` in one word, as people and codes say it."""

    def __init__(self, kind: str, reference: str, advice: str) -> None:
        super().__init__(
            {
                "title": "Not found",
                "detail": f"There is no {kind} {reference!r}.",
                "code": f"{kind.replace(' ', '_')}_not_found",
                "advice": advice,
            },
            ExitCode.NOT_FOUND,
        )


class NoSuchDeployment(NotThere):
    def __init__(self, reference: str, advice: str) -> None:
        super().__init__("deployment", reference, advice)


def exit_code_of(status: int) -> ExitCode:
    """Of an HTTP status that is no success."""
    return {
        401: ExitCode.AUTH,
        403: ExitCode.AUTH,
        404: ExitCode.NOT_FOUND,
    }.get(status, ExitCode.FAILED)
