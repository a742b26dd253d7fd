"""`stop`, `start` and `scale`: what one wants otherwise of deployments that are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any  # the API's documents are JSON

import typer
from rich.text import Text

from moorage.cli import rendering, waiting
from moorage.cli.deploying import NoWait
from moorage.cli.failures import CliError, ExitCode
from moorage.cli.session import Json, Key, Reference, Session, Url, session

Document = dict[str, Any]

_OVER = frozenset({"deployment.failed", "deployment.deleted"})
_STOPPED = _OVER | {"deployment.stopped"}
_STARTED = _OVER | {"deployment.ready"}
_CHANGED = _OVER | {"deployment.updated", "deployment.update_refused", "deployment.stopped"}


def stop(
    deployment: Reference,
    no_wait: NoWait = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Stop a deployment: no replica runs or costs, the rest is kept until `moorage start`."""
    with session(url, key, as_json) as s:
        _want(s, deployment, s.client.stop, "Stopping", _STOPPED, wait=not no_wait)


def start(
    deployment: Reference,
    no_wait: NoWait = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Start a stopped deployment, and wait until it answers."""
    with session(url, key, as_json) as s:
        _want(s, deployment, s.client.start, "Starting", _STARTED, wait=not no_wait)


def scale(
    deployment: Reference,
    replicas: Annotated[int, typer.Argument(metavar="REPLICAS", help="That are always there.")],
    max_replicas: Annotated[
        int | None, typer.Option("--max", help="That there may be, where the provider scales by load.")
    ] = None,
    no_wait: NoWait = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Have another number of replicas. One that is stopped has it from its next start."""
    if max_replicas is not None and max_replicas < replicas:
        raise typer.BadParameter(f"--max {max_replicas} is below {replicas}.")
    with session(url, key, as_json) as s:

        def scaled(id_: str) -> Document:
            return s.client.scale(id_, replicas, max_replicas)

        _want(s, deployment, scaled, "Scaling", _CHANGED, wait=not no_wait)


def _want(
    s: Session,
    reference: str,
    ask: Callable[[str], Document],
    doing: str,
    ends: frozenset[str],
    *,
    wait: bool,
) -> None:
    """Asks for it, and follows what comes of it, if there is anything to come."""
    found = s.client.find(reference)
    id_, name = found["deployment_id"], found["name"]
    before = s.client.events(id_)
    after = before[-1]["id"] if before else None
    current = ask(id_)
    # what is so already is not asked of the engine, and what is stopped has nothing to change
    asked = any(event["type"].endswith("_requested") for event in s.client.events(id_, after))
    still = current["status"] == "stopped" and ends is _CHANGED
    if wait and asked and not still:
        s.out.note(Text.assemble(f"{doing} ", (name, "bold")))
        with waiting.interruptible(s, f"It goes on by itself: `moorage events -f {name}` follows it."):
            how = waiting.until(s, id_, ends, after)
        current = s.client.deployment(id_)
        if how in _OVER:
            raise waiting.failure(current)
        if how == "deployment.update_refused":
            raise _refused(name)
    s.out.result(current, rendering.summary(current))


def _refused(name: str) -> CliError:
    document = {
        "title": "The change was refused",
        "detail": f"Where it runs, the change of {name} cannot be made; it goes on as it was.",
        "code": "update_refused",
        "advice": f"`moorage events {name}` says why.",
    }
    return CliError(document, ExitCode.FAILED)
