"""Where a command's words go: results to standard output, everything else to standard error.

With `--json` standard output holds JSON and nothing else, so that it can be piped as it is.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO  # the API's documents are JSON

from rich.console import Console, RenderableType
from rich.text import Text

from moorage.cli.failures import CliError

WIDE = 140  # columns
PIPED_WIDTH = 240


class _Console(Console):
    """Rich would end the process with an exit code of its own; a reader that went away is `main`'s matter."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console(stream: TextIO) -> Console:
    """A pipe or file has no width of its own: nothing is cut there, so that lines can be searched."""
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PIPED_WIDTH
    return _Console(file=stream, highlight=False, width=width)


def _print(console: Console, part: RenderableType) -> None:
    """Text keeps its lines, since a key or a URL that is broken in two is of no use; a table may wrap."""
    console.print(part, soft_wrap=isinstance(part, Text))


def reader_gone() -> int:
    """Standard output has no reader any more: what is still buffered goes nowhere. The exit code for it is
    that of a process that SIGPIPE ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


class Output:
    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self._results = _console(sys.stdout)
        self.notes = _console(sys.stderr)

    @property
    def wide(self) -> bool:
        """Whether a line has room for ids."""
        return self._results.width >= WIDE

    def result(self, document: Any, *shown: RenderableType) -> None:
        """What the command was asked for: the document, or the same as people read it."""
        if self.as_json:
            self._write(json.dumps(document, ensure_ascii=False, indent=2))
            return
        for part in shown:
            _print(self._results, part)

    def line(self, document: Any, shown: RenderableType) -> None:
        """One of many results, told as it comes: JSON Lines with --json."""
        if self.as_json:
            self._write(json.dumps(document, ensure_ascii=False))
        else:
            _print(self._results, shown)

    def note(self, text: RenderableType) -> None:
        _print(self.notes, text)

    def problem(self, error: CliError) -> None:
        """On standard error in words; with --json also on standard output, as a problem document."""
        if self.as_json:
            self._write(json.dumps(error.document, ensure_ascii=False, indent=2))
        for text in problem_lines(error.document):
            _print(self.notes, text)

    def _write(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def problem_lines(document: dict[str, Any]) -> list[Text]:
    """Title and detail, each field with its rule, and what to do."""
    lines = [Text.assemble((str(document.get("title") or "Error"), "bold red"))]
    errors = document.get("errors") or []
    if not errors or any(error["message"] not in document["detail"] for error in errors):
        lines.append(Text(f"  {document['detail']}"))
    lines += [
        Text.assemble("  ", (error["field"], "bold"), f" ({error['rule']}): {error['message']}")
        for error in errors
    ]
    if document.get("advice"):
        lines.append(Text.assemble("  ", ("→ ", "cyan"), str(document["advice"])))
    return lines
