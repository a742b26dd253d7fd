"""`keys` and `login`: who may use the service."""

from __future__ import annotations

import getpass
import os
import sys
from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text

from moorage.cli import rendering
from moorage.cli.session import Json, Key, Url, session

keys = typer.Typer(name="keys", help="Make, list and revoke API keys.", no_args_is_help=True)


class Role(StrEnum):
    """The roles that the service knows; the words are its own."""

    OWNER = "owner"
    ADMIN = "admin"
    DEPLOYER = "deployer"
    VIEWER = "viewer"
    INVOKER = "invoker"


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    role: Annotated[Role, typer.Option()] = Role.DEPLOYER,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Make an API key. It is printed this once."""
    with session(url, key, as_json) as s:
        made = s.client.create_key(name, role.value)
        s.out.result(made, Text(made["key"]))
        s.out.note(Text(f"{made['id']}, role {made['role']}. Keep it now: nobody can show it again.", "dim"))


@keys.command("ls")
def ls(url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List the organization's API keys."""
    with session(url, key, as_json) as s:
        found = s.client.keys()
        s.out.result(found, rendering.keys(found))


@keys.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Revoke an API key, for good."""
    with session(url, key, as_json) as s:
        s.out.result(revoked := s.client.revoke_key(key_id), Text(f"{revoked['id']} revoked"))


def login(
    username: Annotated[str, typer.Argument(help="Of a user of the service.")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Sign in with a password, and print a token: export MOORAGE_KEY=$(moorage login NAME)

    The password is asked for, or taken from MOORAGE_PASSWORD, or read from standard input.
    """
    with session(url, None, as_json) as s:
        answer = s.client.sign_in(username, _password())
        s.out.result(answer, Text(answer["token"]))


def _password() -> str:
    given = os.environ.get("MOORAGE_PASSWORD")
    if given:
        return given
    return getpass.getpass(stream=sys.stderr) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
