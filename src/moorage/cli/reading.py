"""`ls`, `get`, `events` and `logs`: what is, and what happened."""

from __future__ import annotations

from typing import Annotated

import typer

from moorage.cli import rendering, waiting
from moorage.cli.session import Json, Key, Reference, Url, session

PHASES = (
    "validating",
    "selecting_gpu",
    "creating_endpoint",
    "loading_model",
    "ready",
    "updating",
    "stopping",
    "stopped",
    "hibernating",
    "hibernated",
    "waking",
    "deleting",
    "failed",
)  # those that `ls` shows by default; `deleted` is the one left out

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on as it happens.")]


def ls(
    status: Annotated[list[str] | None, typer.Option(help="Only in that phase; repeat it.")] = None,
    provider: Annotated[str | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option(help="Model id or image.")] = None,
    name: Annotated[str | None, typer.Option()] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Deleted ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """List deployments, the newest first."""
    with session(url, key, as_json) as s:
        phases = status or (() if everything else PHASES)
        found = s.client.deployments(status=phases, provider=provider, model=model, name=name, limit=limit)
        s.out.result(found, rendering.deployments(found, wide=s.out.wide))


def get(deployment: Reference, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Show everything that is known of a deployment."""
    with session(url, key, as_json) as s:
        found = s.client.find(deployment)
        s.out.result(found, rendering.deployment(found))


def events(
    deployment: Reference, follow: Follow = False, url: Url = None, key: Key = None, as_json: Json = False
) -> None:
    """Show what happened to a deployment. With -f until it is deleted."""
    with session(url, key, as_json) as s, waiting.interruptible(s):
        id_ = s.client.find(deployment)["deployment_id"]
        for event in s.client.follow_events(id_) if follow else s.client.events(id_):
            s.out.line(event, rendering.event(event))


def logs(
    deployment: Reference,
    follow: Follow = False,
    tail: Annotated[int, typer.Option(min=0, max=5000, help="The last so many lines.")] = 100,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Show the log of a deployment's replicas."""
    with session(url, key, as_json) as s, waiting.interruptible(s):
        id_ = s.client.find(deployment)["deployment_id"]
        for line in s.client.follow_logs(id_, tail) if follow else s.client.logs(id_, tail):
            s.out.line(line, rendering.log_line(line))
