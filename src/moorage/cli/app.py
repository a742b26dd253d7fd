"""All commands under one roof, and what is true for every one of them."""

from __future__ import annotations

from typing import Annotated

import typer

from moorage import __version__
from moorage.cli import (
    changing,
    clusters,
    compute,
    deploying,
    identity,
    inferring,
    models,
    reading,
    serving,
    store,
)

_EXIT_CODES = """Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 not allowed, 5 service not
reached, 130 interrupted."""

app = typer.Typer(
    name="moorage",
    help="Deploys a model to the cheapest compute it fits on, waits until it answers, and looks after it.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    serving.serve,
    deploying.plan,
    deploying.deploy,
    reading.ls,
    reading.get,
    reading.logs,
    reading.events,
    inferring.infer,
    compute.gpus,
    compute.cost,
    changing.scale,
    changing.stop,
    changing.start,
    deploying.delete,
    identity.login,
):
    app.command()(command)
app.add_typer(identity.keys)
app.add_typer(compute.credentials)
app.add_typer(clusters.clusters)
app.add_typer(models.models)
app.add_typer(store.store)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moorage {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Deploys a model to the cheapest compute it fits on, waits until it answers, and looks after it."""
