"""Logs on stderr, one line an event, because a supervisor keeps and searches them line by line.

The last line of a process that could not load its model is the cause; a supervisor shows it to the user.
"""

from __future__ import annotations

import logging
import sys
import time

from moorage_worker.redaction import without_secrets


class OneLineFormatter(logging.Formatter):
    """`2026-01-31T09:30:00.123Z INFO message`; a traceback is folded into the same line. Secrets are left
    out, whoever logs."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        lines = (line.strip() for line in super().format(record).splitlines())
        return without_secrets(" \\ ".join(line for line in lines if line))


def configure_logging() -> None:
    """Send every logger of this process to stderr; libraries speak from WARNING up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("moorage_worker").setLevel(logging.INFO)
    logging.captureWarnings(True)
