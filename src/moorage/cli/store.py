"""`store`: the place where everything is kept, checked and moved.

Unlike the others these commands talk to no service: none may run while its store is moved.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from moorage.cli import store_urls
from moorage.cli.failures import CliError, ExitCode, Usage
from moorage.cli.output import Output
from moorage.cli.rendering import table
from moorage.cli.session import Json, reported
from moorage.cli.store_progress import StoreProgress
from moorage.errors import MoorageError, StoreError, StoreUnavailable, StoreUnusable

if TYPE_CHECKING:  # the other commands start faster without the adapters
    from moorage.copying import Contents, Copied
    from moorage.open_store import OpenStore
    from moorage.ports.store import Collection

_STOP_BOTH = "No service may run on either of them before this has ended."
_GO_ON = "The same command goes on where it was. Start no service on the target before it has ended well."
_OTHER_TARGET = (
    "Nothing was written. Name an empty store. This one is another's, or a service has run on it, or the"
    " source lost rows after an earlier copy."
)
_STILL_RUNNING = "Does a service still run on one of them? Stop it, and give the same command again."
_URL = "URL, or env:NAME for the variable that has it."

store = typer.Typer(
    name="store", help="Check and move the store that a service keeps everything in.", no_args_is_help=True
)


@store.command("copy")
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help=_URL)],
    target: Annotated[str, typer.Argument(metavar="TO", help="The same: empty, or left by an earlier copy.")],
    as_json: Json = False,
) -> None:
    """Copy everything to another store, and verify it by count and hash. Stop the service first.

    moorage store copy sqlite:////srv/moorage/var/moorage.db env:MOORAGE_DATABASE_URL
    """
    out = Output(as_json)
    with reported(out):
        source, target = store_urls.given(source), store_urls.given(target)
        names = store_urls.shown(source), store_urls.shown(target)
        store_urls.refuse_missing_file(source)
        if store_urls.same(source, target):
            raise Usage(f"{names[0]} and {names[1]} are one store.", "Name another one to copy to.")
        out.note(Text(f"{names[0]} → {names[1]}. {_STOP_BOTH}"))
        with _interruptible(out, _GO_ON), StoreProgress(out) as progress:
            found = asyncio.run(_copied(source, target, progress))
        _tell_copy(out, names, found)


@store.command("check")
def check(
    url: Annotated[str, typer.Argument(metavar="STORE", help=_URL)],
    as_json: Json = False,
) -> None:
    """Open a store as a service would, which brings its tables up to date, and count what it holds."""
    out = Output(as_json)
    with reported(out):
        url = store_urls.given(url)
        name = store_urls.shown(url)
        store_urls.refuse_missing_file(url)
        with _interruptible(out), StoreProgress(out) as progress:
            found = asyncio.run(_contents(url, progress))
        _tell_contents(out, name, found)


def _tell_copy(out: Output, names: tuple[str, str], found: Sequence[Copied]) -> None:
    rows = table("COLLECTION", "ROWS", "WRITTEN", "SHA-256", right=["ROWS", "WRITTEN"])
    collections = []
    for each in found:
        held = each.contents
        rows.add_row(each.collection, str(held.rows), str(each.written), held.sha256[:16])
        row = {"rows": held.rows, "written": each.written, "sha256": held.sha256}
        collections.append({"collection": each.collection, **row})
    total = sum(each.contents.rows for each in found)
    document = {"source": names[0], "target": names[1], "equal": True, "collections": collections}
    out.result(document, rows, Text(f"Equal by count and by hash: {total} rows."))


def _tell_contents(out: Output, name: str, found: Mapping[Collection, Contents]) -> None:
    rows = table("COLLECTION", "ROWS", "SHA-256", right=["ROWS"])
    collections = []
    for collection, held in found.items():
        rows.add_row(collection, str(held.rows), held.sha256[:16])
        collections.append({"collection": collection, "rows": held.rows, "sha256": held.sha256})
    document = {"store": name, "reachable": True, "schema": "current", "collections": collections}
    out.result(document, rows, Text(f"{name} answers, and its tables are those of this release."))


async def _copied(source_url: str, target_url: str, progress: StoreProgress) -> Sequence[Copied]:
    from moorage import copying

    async with _opened(source_url) as source, _opened(target_url) as target:
        with _store_errors("One of the two", _GO_ON):
            try:
                return await copying.copy(source, target, progress.tell)
            except copying.TargetInUse as error:
                raise _failed("The target is in use", error, "target_in_use", _OTHER_TARGET) from error
            except copying.NotEqual as error:
                raise _failed("The copy is not equal", error, "copy_not_equal", _STILL_RUNNING) from error


async def _contents(url: str, progress: StoreProgress) -> dict[Collection, Contents]:
    from moorage.copying import COLLECTIONS, contents

    async with _opened(url) as found:
        with _store_errors(store_urls.shown(url), "Try again."):
            return {name: await contents(found, name, progress.reading(name)) for name in COLLECTIONS}


@contextlib.asynccontextmanager
async def _opened(url: str) -> AsyncIterator[OpenStore]:
    from moorage.open_store import open_store

    name = store_urls.shown(url)
    with _store_errors(name, "Look at the URL, and whether the server runs."):
        try:
            opened = await open_store(url)
        except ValueError as error:
            raise Usage(_sentence(error)) from error
        except ModuleNotFoundError as error:
            detail = f"{name} needs the Python package {error.name}, which is not installed"
            raise _failed("The store cannot be used", detail, "store_unusable") from error
    try:
        yield opened
    finally:
        await opened.aclose()


@contextlib.contextmanager
def _store_errors(name: str, advice: str) -> Iterator[None]:
    """What a store says has no secret in it."""
    try:
        yield
    except StoreUnavailable as error:
        document = {"title": "The store cannot be reached", "detail": f"{name}: {_sentence(error)}"}
        document |= {"code": "store_unavailable", "advice": advice}
        raise CliError(document, ExitCode.UNREACHABLE) from error
    except StoreUnusable as error:
        raise _failed("The store cannot be used", f"{name}: {error}", "store_unusable") from error
    except StoreError as error:
        raise _failed("The store failed", f"{name}: {error}", "store_failed", advice) from error


@contextlib.contextmanager
def _interruptible(out: Output, *words: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        out.note(Text("\nInterrupted.", "bold"))
        for line in words:
            out.note(Text(line))
        raise typer.Exit(ExitCode.INTERRUPTED) from error


def _failed(title: str, detail: str | MoorageError, code: str, advice: str | None = None) -> CliError:
    document = {"title": title, "detail": _sentence(detail), "code": code, "advice": advice}
    return CliError(document, ExitCode.FAILED)


def _sentence(told: object) -> str:
    return f"{str(told).rstrip('.')}."
