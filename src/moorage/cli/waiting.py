"""Following a deployment until it is what the command waits for, and saying how it goes.

Who interrupts it is told what goes on running, and how to end it: a deployment does not stop because nobody
watches, and it may cost money.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any  # the API's documents are JSON

import typer
from rich.text import Text

from moorage.cli import rendering
from moorage.cli.failures import CliError, ExitCode
from moorage.cli.session import Session

Document = dict[str, Any]

OVER = frozenset({"deployment.ready", "deployment.failed", "deployment.deleted"})


def until(session: Session, deployment_id: str, ends: frozenset[str], after: str | None = None) -> str:
    """The type of the event that ended it: the first of `ends`, of all events or those after the id `after`.
    Prints each event as it comes."""
    begin: datetime | None = None
    with session.out.notes.status("…") as status:
        for event in session.client.follow_events(deployment_id, after):
            at = datetime.fromisoformat(event["at"])
            begin = begin or at
            session.out.note(progress_line(event, (at - begin).total_seconds()))
            status.update(f"{event['type'].removeprefix('deployment.')} …")
            if event["type"] in ends:
                return str(event["type"])
    return "deployment.deleted"


def progress_line(event: Document, seconds: float) -> Text:
    name = event["type"].removeprefix("deployment.")
    shown = rendering.phase(name)
    shown.pad_right(max(1, 20 - len(name)))
    return Text.assemble((f"{seconds:7.2f} s  ", "dim"), shown, event["message"])


@contextlib.contextmanager
def interruptible(session: Session, *words: str) -> Iterator[None]:
    """Ctrl-C ends the command with 130 and these words."""
    try:
        yield
    except KeyboardInterrupt as error:
        session.out.note(Text("\nInterrupted.", "bold"))
        for line in words:
            session.out.note(Text(line))
        raise typer.Exit(ExitCode.INTERRUPTED) from error


def failure(deployment: Document) -> CliError:
    """Of a deployment that did not become ready: its own cause and advice."""
    told = deployment["error"] or {
        "code": "deleted",
        "detail": "It was deleted before it was ready.",
        "advice": None,
    }
    return CliError(
        {
            "title": f"The deployment {deployment['deployment_id']} {deployment['status']}",
            **told,
            "deployment": deployment,
        },
        ExitCode.FAILED,
    )
