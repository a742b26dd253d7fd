"""Structured logs: lines for people on a terminal, JSON elsewhere, and no secret in either.

Whatever comes in, by structlog or by the standard library, with an exception or without, passes `redaction`
last before it is rendered: a renderer never sees a value that was not rebuilt there.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from moorage.adapters.redaction import Redactor, says_secret

NOISY = ("httpx", "httpx2", "httpcore", "alembic", "uvicorn.access", "google", "grpc", "opentelemetry")


def redacting(redactor: Redactor) -> Processor:
    """The last processor but the renderer. An exception is told as text, so that it is searched like any."""

    def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        in_words = structlog.processors.format_exc_info(logger, method, event)
        return {**redactor.mapping(dict(in_words))}

    return redact


def configure(
    form: str, level: str, *, secrets: Iterable[str] = (), environ: Mapping[str, str] = os.environ
) -> None:
    """`form` is `json`, `console`, or `auto`: console on a terminal. Logs go to stderr. `secrets` are never
    told, nor are the values of variables in `environ` whose names say that they are secret."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    redactor = Redactor([*secrets, *(value for name, value in environ.items() if says_secret(name))])
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redacting(redactor),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """To stderr as it is when the line is written."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """The library would print the message and its arguments as they came, which may be secret."""
        place = f'"logger": "{record.name}", "line": {record.lineno}'
        self.stream.write(f'{{"event": "log.line_lost", {place}}}\n')
