#!/usr/bin/env python3
"""Lists the serverless endpoints that Moorage made in a RunPod account, and removes them where it is told to.

    RUNPOD_API_KEY=… python scripts/cleanup_endpoints.py --older-than 2h            # only looks
    RUNPOD_API_KEY=… python scripts/cleanup_endpoints.py --older-than 2h --delete

For what a service left that is no more; a service that runs removes its own. Moorage's endpoints are known by
their names, mrg-<26 characters>-r<revision>-a<attempt>; no other endpoint is listed or touched. An endpoint
says in its environment which installation made it: --installation takes that id, so that the endpoints of
other installations in the same account stay.

Deleting ends all workers and cancels queued jobs, and cannot be undone. After it each endpoint is asked for
until RunPod says that it is not there. The key comes from the environment or a file, never from an option.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any  # RunPod's documents are JSON

if TYPE_CHECKING:  # the type checker starts at the root, a script in its own folder
    from scripts.http_api import Exit, Failed, HttpApi, run, runpod_key, say
else:
    from http_api import Exit, Failed, HttpApi, run, runpod_key, say

API_URL = "https://api.runpod.io"
NAME = re.compile(r"mrg-[a-z2-7]{26}-r\d{1,6}-a\d{1,6}")  # as moorage/domain/naming.py makes them
INSTALLATION = "MOORAGE_INSTALLATION"
LOOK_EVERY_SECONDS = 1.0

EPILOG = """exit codes: 0 nothing (more) to remove, 1 something could not be removed, 2 wrong usage,
3 something was found and --delete was not given, 4 the key is not accepted or may not do this,
5 RunPod not reached, 130 interrupted"""

_AGE = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is shown of an endpoint; `workers` is the most that may run."""

    id: str
    name: str
    created_at: datetime
    installation: str
    workers_max: int
    compute: str

    @classmethod
    def read(cls, told: dict[str, Any]) -> Endpoint:
        gpu = told.get("gpu") or {}
        created = datetime.fromisoformat(told["createdAt"])
        return cls(
            id=told["id"],
            name=told["name"],
            created_at=created if created.tzinfo else created.replace(tzinfo=UTC),
            installation=(told.get("env") or {}).get(INSTALLATION, ""),
            workers_max=told["workers"]["max"],
            compute=f"{','.join(gpu['pools'])} ×{gpu.get('count', 1)}" if gpu.get("pools") else "CPU",
        )


@dataclass(frozen=True, slots=True)
class Filter:
    older_than: timedelta
    name: str | None
    installation: str | None

    def takes(self, endpoint: Endpoint, now: datetime) -> bool:
        return (
            NAME.fullmatch(endpoint.name) is not None
            and now - endpoint.created_at >= self.older_than
            and (self.name is None or fnmatchcase(endpoint.name, self.name))
            and (self.installation is None or endpoint.installation == self.installation)
        )


def found(api: HttpApi, wanted: Filter) -> list[Endpoint]:
    """The oldest first."""
    told = api.ask("GET", "/v2/serverless")
    try:
        named = [e for e in told["endpoints"] if NAME.fullmatch(e["name"])]
        endpoints = [Endpoint.read(e) for e in named]
    except (KeyError, TypeError, ValueError):
        raise Failed("RunPod's list of endpoints is not in the form of its API.") from None
    now = datetime.now(UTC)
    return sorted((e for e in endpoints if wanted.takes(e, now)), key=lambda e: e.created_at)


def table(endpoints: Sequence[Endpoint]) -> Iterator[str]:
    now = datetime.now(UTC)
    rows = [("NAME", "ID", "AGE", "WORKERS", "ON", "INSTALLATION")]
    for e in endpoints:
        age = f"{age_of(now - e.created_at)}"
        rows.append((e.name, e.id, age, f"≤{e.workers_max}", e.compute, e.installation or "–"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def age_of(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def delete(api: HttpApi, endpoints: Iterable[Endpoint], patience: float) -> list[Endpoint]:
    """Those that are still there, or of which nobody knows. One that cannot be deleted stops no other."""
    left: list[Endpoint] = []
    asked: list[Endpoint] = []
    for endpoint in endpoints:
        try:
            api.ask("DELETE", f"/v2/serverless/{endpoint.id}")
        except Failed as failed:
            if failed.code is Exit.REFUSED:
                raise
            if failed.status != 404:
                say(f"{endpoint.name}: {failed}")
                left.append(endpoint)
                continue
        asked.append(endpoint)
    ends = time.monotonic() + patience
    for endpoint in asked:
        if absent(api, endpoint, ends):
            say(f"{endpoint.name}: deleted, and not there any more")
        else:
            say(f"{endpoint.name}: deleted, and {patience:g} s later still there")
            left.append(endpoint)
    return left


def absent(api: HttpApi, endpoint: Endpoint, ends: float) -> bool:
    while True:
        try:
            api.ask("GET", f"/v2/serverless/{endpoint.id}")
        except Failed as failed:
            if failed.status == 404:
                return True
            if failed.status is None:
                raise
        if time.monotonic() > ends:
            return False
        time.sleep(LOOK_EVERY_SECONDS)


def age(text: str) -> timedelta:
    match = _AGE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError("write it as 90s, 30m, 2h or 7d")
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise argparse.ArgumentTypeError("nothing is that old") from None


def arguments_of(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--delete", action="store_true", help="remove what is listed; else nothing changes")
    parser.add_argument(
        "--older-than", type=age, default=timedelta(0), metavar="AGE", help="such as 90s, 30m, 2h, 7d"
    )
    parser.add_argument("--name", metavar="GLOB", help="such as 'mrg-*-r1-a*'")
    parser.add_argument("--installation", metavar="ID", help=f"only those with this {INSTALLATION}")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="in place of RUNPOD_API_KEY")
    parser.add_argument("--api-url", default=API_URL, metavar="URL", help=f"default: {API_URL}")
    parser.add_argument(
        "--patience", type=float, default=60.0, metavar="SECONDS", help="for all to be gone (default: 60)"
    )
    return parser.parse_args(argv)


def main() -> int:
    arguments = arguments_of()
    wanted = Filter(arguments.older_than, arguments.name, arguments.installation)
    with HttpApi(arguments.api_url, runpod_key(arguments.key_file), "cleanup-endpoints") as api:
        endpoints = found(api, wanted)
        if not endpoints:
            say("Nothing of Moorage's that the filters take.")
            return Exit.OK
        print(*table(endpoints), sep="\n", flush=True)
        if not arguments.delete:
            say(f"{len(endpoints)} found, nothing changed. --delete removes them.")
            return Exit.FOUND
        try:
            left = delete(api, endpoints, arguments.patience)
        except BaseException:  # Ctrl-C too
            say("Not all may be removed. Run this again without --delete to see what is left.")
            raise
    if left:
        say(f"{len(left)} of {len(endpoints)} are left: {', '.join(e.name for e in left)}.")
        return Exit.FAILED
    say(f"{len(endpoints)} removed.")
    return Exit.OK


if __name__ == "__main__":
    run(main)
