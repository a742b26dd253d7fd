"""`gpus`, `cost` and `credentials`: what can be had, what it costs, and whose account pays."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer
from rich.text import Text

from moorage.cli import rendering
from moorage.cli.failures import Usage
from moorage.cli.session import Json, Key, Reference, Url, session

credentials = typer.Typer(name="credentials", help="Store accounts at providers.", no_args_is_help=True)


def gpus(url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List the compute that can be had now, the cheapest first."""
    with session(url, key, as_json) as s:
        market = s.client.gpus()
        s.out.result(market, *rendering.market(market))


def cost(deployment: Reference, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Show what a deployment has cost: measured here, and billed where the provider tells it."""
    with session(url, key, as_json) as s:
        found = s.client.cost(s.client.find(deployment)["deployment_id"])
        s.out.result(found, rendering.deployment_cost(found))


@credentials.command("store")
def store(
    provider: Annotated[str, typer.Argument(help="Such as runpod.")],
    name: Annotated[str, typer.Option(help="To tell several apart.")] = "main",
    field: Annotated[str, typer.Option(help="What the provider calls its key.")] = "api_key",
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Store a provider's key. It is asked for, or read from standard input, and checked with the provider."""
    with session(url, key, as_json) as s:
        secret = getpass.getpass(f"{provider} {field}: ") if sys.stdin.isatty() else sys.stdin.readline()
        if not secret.strip():
            raise Usage("No key came in.", f"For example: moorage credentials store {provider} < key-file")
        stored = s.client.store_credential(provider, name, {field: secret.strip()})
        s.out.result(stored, Text(stored["id"]))
        s.out.note(Text(f"Deployments may run on {provider} from now on.", "dim"))


@credentials.command("ls")
def ls(url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List stored accounts; never their keys."""
    with session(url, key, as_json) as s:
        found = s.client.credentials()
        s.out.result(found, rendering.credentials(found))


@credentials.command("rm")
def rm(
    reference: Annotated[str, typer.Argument(metavar="NAME", help="Its name or id.")],
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Remove a stored account that no deployment needs."""
    with session(url, key, as_json) as s:
        named = [c["id"] for c in s.client.credentials() if reference in (c["id"], c["name"])]
        id_ = named[0] if named else reference
        s.client.remove_credential(id_)
        s.out.result({"id": id_, "removed": True}, Text(f"{id_} removed"))
