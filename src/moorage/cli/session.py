"""What every command that talks to the service has in common: where it is, who asks, and how to print.

The options are declared once here as types, so that each command has them under the same names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from moorage.cli.client import MoorageClient
from moorage.cli.failures import CliError, Usage
from moorage.cli.local_access import LocalAccess
from moorage.cli.output import Output, reader_gone

DEFAULT_URL = "http://127.0.0.1:8080"
_PANEL = "Service"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="MOORAGE_URL",
        show_envvar=True,
        metavar="URL",
        rich_help_panel=_PANEL,
        help="Of the service; the one started here when absent.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="MOORAGE_KEY",
        show_envvar=True,
        metavar="KEY",
        rich_help_panel=_PANEL,
        help="API key. Rather use the variable: other users can see options.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=_PANEL, help="JSON on standard output, and nothing else.")
]
Reference = Annotated[
    str, typer.Argument(metavar="DEPLOYMENT", help="Its id, its name, or the model that it alone serves.")
]


@dataclass(frozen=True, slots=True)
class Session:
    client: MoorageClient
    out: Output


@contextlib.contextmanager
def session(url: str | None, key: str | None, as_json: bool) -> Iterator[Session]:
    """Prints what goes wrong, and ends the command with the exit code for it."""
    out = Output(as_json)
    with reported(out):
        url, key = connection(url, key)
        with MoorageClient(url, key) as client:
            yield Session(client, out)


@contextlib.contextmanager
def reported(out: Output) -> Iterator[None]:
    try:
        yield
    except CliError as error:
        out.problem(error)
        raise typer.Exit(error.exit_code) from error
    except BrokenPipeError as error:
        raise typer.Exit(reader_gone()) from error


def connection(url: str | None, key: str | None) -> tuple[str, str | None]:
    """Base URL and key: what was given, else what a service in the data directory left for us."""
    local = LocalAccess.read(Path(os.environ.get("MOORAGE_DATA_DIR") or "var"))
    url = (url or (local.url if local else None) or DEFAULT_URL).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise Usage(f"{url!r} is no URL of a service.", "Write it with http:// or https://.")
    key = (key or "").strip() or (local.key_for(url) if local else None)
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise Usage("The key is not of the form of a key.", "It is one word; look at MOORAGE_KEY.")
    return url, key
