"""The command line: a client of the HTTP API, and `moorage serve`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command of `sys.argv`. It never ends in a traceback because of Ctrl-C, at whatever moment, or
    of a reader of its output that went away (`moorage ls | head -1`)."""
    try:
        from moorage.cli.app import app  # here, since it takes long enough to be interrupted

        try:
            app()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        from moorage.cli.output import reader_gone

        sys.exit(reader_gone())
