"""Which queue, which store of results, and how much a worker does at a time: all told by variables.

The addresses hold passwords, so they are never flags, which every user of a machine can read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import urlsplit

from moorage_worker.errors import SettingsError
from moorage_worker.redaction import QUEUE_URL, RESULTS_URL

QUEUE_NAME = "MOORAGE_QUEUE_NAME"
CONSUMERS = "MOORAGE_QUEUE_CONSUMERS"
GRACE_SECONDS = "MOORAGE_QUEUE_GRACE_SECONDS"
RESULT_SECONDS = "MOORAGE_RESULT_SECONDS"
ATTEMPTS = "MOORAGE_QUEUE_ATTEMPTS"
MOST_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """`consumers` jobs are in work at once. A job that `attempts` workers have died of is given up.

    `grace_seconds` is all the time from SIGTERM to the end, as Kubernetes' terminationGracePeriodSeconds.
    """

    url: str = field(repr=False)
    name: str
    results_url: str = field(repr=False)
    consumers: int
    grace_seconds: int
    result_seconds: int
    attempts: int

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> QueueSettings:
        """Raises SettingsError with the variable and the rule."""
        for package in ("aio_pika", "redis"):
            if find_spec(package) is None:
                raise SettingsError(
                    QUEUE_URL, f"needs the package {package}; run: pip install 'moorage-worker[queue]'"
                )
        return cls(
            url=_address(environ, QUEUE_URL, ("amqp", "amqps")),
            name=_name(environ),
            results_url=_address(environ, RESULTS_URL, ("redis", "rediss")),
            consumers=_number(environ, CONSUMERS, 1, 1, 256),
            grace_seconds=_number(environ, GRACE_SECONDS, 30, 0, 86_400),
            result_seconds=_number(environ, RESULT_SECONDS, 86_400, 1, 31 * 86_400),
            attempts=_number(environ, ATTEMPTS, 3, 1, MOST_ATTEMPTS),
        )


def place(url: str) -> str:
    """Host and port of an address, for logs: what may be said of it."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2]


def _address(environ: Mapping[str, str], variable: str, schemes: tuple[str, ...]) -> str:
    value = environ.get(variable, "").strip()
    form = f"{schemes[0]}://user:password@host:port"
    if not value:
        raise SettingsError(variable, f"must be set, to an address such as {form}")
    try:
        parts = urlsplit(value)
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text holds the address
        good = False
    if not good:
        raise SettingsError(variable, f"must be an address such as {form} ({' or '.join(schemes)})")
    return value


def _name(environ: Mapping[str, str]) -> str:
    name = environ.get(QUEUE_NAME, "").strip()
    if not name:
        raise SettingsError(QUEUE_NAME, "must be set, to the name of the queue")
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,200}", name) or name.startswith("amq."):
        raise SettingsError(
            QUEUE_NAME,
            f"must be 1 to 200 letters, digits or any of . _ : - and not begin with amq., got {name[:210]!r}",
        )
    return name


def _number(environ: Mapping[str, str], variable: str, default: int, low: int, high: int) -> int:
    text = environ.get(variable, "").strip()
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise SettingsError(variable, f"must be a whole number from {low} to {high}, got {text[:40]!r}")
    return int(text)
