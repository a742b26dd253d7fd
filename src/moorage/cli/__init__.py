"""The command line: a client of the HTTP API, and `moorage serve`."""

from __future__ import annotations

import os
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
        # What is still buffered has nowhere to go; without this the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a process that SIGPIPE ended
