"""The operator's settings of the local driver, read once and refused with the name of the one at fault."""

from __future__ import annotations

import ipaddress
import math
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moorage.ports.provider import ProviderConfig
from moorage_managed.spec import LOOPBACK, Timings

PREFIX = "MOORAGE_MANAGED_"


@dataclass(frozen=True, slots=True)
class LocalSettings:
    data_dir: Path
    cache_dir: Path
    hub_url: str
    worker_command: tuple[str, ...]
    own_worker: bool  # False: `worker_command` was replaced, so nothing is known of its engines
    memory_bytes: int | None  # the budget; None: what the machine has, less a reserve
    cpus: float  # that one replica may use
    price_per_hour: float | None  # of one replica; None: estimated
    timings: Timings
    host: str = LOOPBACK  # the address that workers listen on, and every process of the service reaches
    machine: str | None = None  # `Offer.home`

    @classmethod
    def read(cls, config: ProviderConfig) -> LocalSettings:
        """Raises ValueError with the variable and the rule that it breaks."""
        environ = config.environ
        data_dir = config.data_dir.resolve()
        command = _worker_command(environ)
        memory_gb = number(environ, "MEMORY_GB", above=0)
        cores = len(os.sched_getaffinity(0))
        return cls(
            data_dir=data_dir,
            cache_dir=Path(environ.get(f"{PREFIX}CACHE_DIR") or data_dir / ".cache").resolve(),
            hub_url=config.hub_url,
            worker_command=command or (sys.executable, "-P", "-m", "moorage_worker"),
            own_worker=command is None,
            memory_bytes=None if memory_gb is None else int(memory_gb * 10**9),
            cpus=min(number(environ, "CPUS", above=0) or cores, cores),
            price_per_hour=number(environ, "PRICE_PER_HOUR", least=0),
            timings=_timings(environ),
            host=_host(environ),
            machine=config.machine or None,
        )


def _host(environ: Mapping[str, str]) -> str:
    text = environ.get(f"{PREFIX}HOST") or LOOPBACK
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.is_unspecified or address.is_multicast:
        raise ValueError(
            f"{PREFIX}HOST must be one IP address of this machine, under which every process of the service "
            f"reaches it; it is {text!r}"
        )
    return str(address)


def _timings(environ: Mapping[str, str]) -> Timings:
    usual = Timings()
    return Timings(
        ready_probe=number(environ, "PROBE_SECONDS", above=0) or usual.ready_probe,
        unhealthy_after=number(environ, "UNHEALTHY_SECONDS", above=0) or usual.unhealthy_after,
        stop_grace=number(environ, "STOP_GRACE_SECONDS", above=0) or usual.stop_grace,
        restart_base=number(environ, "RESTART_SECONDS", above=0) or usual.restart_base,
    )


def _worker_command(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    text = environ.get(f"{PREFIX}WORKER_COMMAND")
    if not text:
        return None
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"{PREFIX}WORKER_COMMAND is no command line: {error}") from error


def number(
    environ: Mapping[str, str], name: str, *, above: float | None = None, least: float | None = None
) -> float | None:
    """The setting PREFIX + `name`; None where it is not set. Raises ValueError."""
    text = environ.get(f"{PREFIX}{name}")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    fits = math.isfinite(value) and (above is None or value > above) and (least is None or value >= least)
    if not fits:
        rule = f"above {above:g}" if above is not None else f"of at least {least:g}"
        raise ValueError(f"{PREFIX}{name} must be a number {rule}; it is {text!r}")
    return value
