"""`models`: containers that were made elsewhere and models of the Hub, registered to be deployed by name."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from moorage.cli.client import Document
from moorage.cli.failures import ExitCode, NotThere, Usage
from moorage.cli.rendering import age, table
from moorage.cli.request_options import HfToken
from moorage.cli.session import Json, Key, Url, session

models = typer.Typer(name="models", help="Register what is deployed by name.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="NAME:VERSION, NAME if it has one, or UUID.")]


@models.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="Of the model.")],
    version: Annotated[str, typer.Argument(help="Of the model; each is registered once.")],
    image: Annotated[str | None, typer.Option(help="A container image.")] = None,
    username: Annotated[
        str | None,
        typer.Option(help="Of the image's registry; the password is asked for, or read from stdin."),
    ] = None,
    hf_model: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="A Hugging Face model.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of the Hugging Face model.")] = None,
    hf_token: HfToken = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Import a container image, or register a Hugging Face model. It fails when there is no such thing.

    moorage models import acme-serve 1.4 --image ghcr.io/acme/serve:1.4 --username acme-bot < password-file
    """
    with session(url, key, as_json) as s:
        if (image is None) == (hf_model is None):
            raise Usage("Give either --image or --hf-model.")
        given = {
            "container_image": image,
            "registry_username": username,
            "registry_password": None if username is None else _password(username),
            "hf_model_id": hf_model,
            "revision": revision,
            "hf_token": None if hf_model is None else hf_token,  # one of the environment is not an image's
        }
        body = {"name": name, "version": version}
        body |= {field: value for field, value in given.items() if value is not None}
        made = s.client.register_model(body)
        s.out.result(made, _one(made))
        if made["status"] != "SUCCESS":
            raise typer.Exit(ExitCode.FAILED)


@models.command("ls")
def ls(url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List models, the newest first."""
    with session(url, key, as_json) as s:
        found = s.client.registered_models()
        s.out.result(found, _all(found))


@models.command("get")
def get(model: Model, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Show a model: what it is, and whether it may be deployed."""
    with session(url, key, as_json) as s:
        found = _named(s.client.registered_models(), model)
        s.out.result(found, _one(found))


@models.command("rm")
def rm(model: Model, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Remove a model that no deployment uses."""
    with session(url, key, as_json) as s:
        uuid = _named(s.client.registered_models(), model)["uuid"]
        s.client.remove_model(uuid)
        s.out.result({"uuid": uuid, "removed": True}, Text(f"{uuid} removed"))


def _password(username: str) -> str:
    secret = getpass.getpass(f"Password of {username}: ") if sys.stdin.isatty() else sys.stdin.read()
    if not secret.strip():
        raise Usage(
            "No password came in.", "It is read from standard input: … --username NAME < password-file"
        )
    return secret.strip()


def _named(models: Sequence[Document], reference: str) -> Document:
    found = [m for m in models if reference in (m["uuid"], m["name"], f"{m['name']}:{m['version']}")]
    if not found:
        raise NotThere("model", reference, "`moorage models ls` shows those that there are.")
    if len(found) > 1:
        versions = ", ".join(f"{m['name']}:{m['version']}" for m in found)
        raise NotThere("model", reference, f"It has several versions; name one of them: {versions}.")
    return found[0]


def _all(found: Sequence[Document]) -> RenderableType:
    if not found:
        return Text("No models. `moorage models import NAME VERSION --image IMAGE` imports one.", "dim")
    rows = table("NAME", "VERSION", "STATUS", "WHAT", "REGISTERED", "UUID")
    for m in found:
        rows.add_row(
            m["name"], m["version"], _status(m), _source(m), f"{age(m['created_at'])} ago", m["uuid"]
        )
    return rows


def _one(m: Document) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    facts.add_row("uuid", m["uuid"])
    facts.add_row("name", m["name"])
    facts.add_row("version", m["version"])
    facts.add_row("status", _status(m))
    facts.add_row("what", _source(m))
    for name in ("digest", "detail"):
        if m[name] is not None:
            facts.add_row(name, Text(m[name]))
    return facts


def _status(m: Document) -> Text:
    return Text(m["status"], "green" if m["status"] == "SUCCESS" else "red")


def _source(m: Document) -> Text:
    revision = "" if m["revision"] is None else f"@{m['revision'][:12]}"
    return Text(m["container_image"] or f"{m['hf_model_id']}{revision}")
