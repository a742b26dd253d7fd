"""What containers write, kept as lines; and the log subresource that reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from moorage_kubernetes.testing.clock import now_exact
from moorage_kubernetes.testing.listing import number
from moorage_kubernetes.testing.statuses import Json, bad_request


@dataclass(slots=True)
class Log:
    """One run of one container: (time, line)."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, line: str) -> None:
        self.lines.append((now_exact(), line))
        self._tell()

    def end(self) -> None:
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        self.moved.set()
        self.moved = asyncio.Event()


class Logs:
    """By pod uid and container; the last run is the current one, that before it `previous`."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], list[Log]] = {}

    def begin(self, uid: str, container: str) -> Log:
        runs = self._runs.setdefault((uid, container), [])
        if runs:
            runs[-1].end()
        runs.append(Log())
        del runs[:-2]
        return runs[-1]

    def forget(self, uid: str) -> None:
        for key in [key for key in self._runs if key[0] == uid]:
            for log in self._runs.pop(key):
                log.end()

    async def serve(self, request: web.Request, pod: Json) -> web.StreamResponse:
        """Raises ApiError 400 where there is no log yet."""
        log = self._chosen(pod, request.query)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        stamped = _true(request.query, "timestamps")
        tail = number(request.query, "tailLines")
        sent = max(0, len(log.lines) - tail) if tail is not None else 0
        while True:
            moved = log.moved
            text = "".join(f"{at} {line}\n" if stamped else f"{line}\n" for at, line in log.lines[sent:])
            sent = len(log.lines)
            if text:
                await response.write(text.encode())
            if log.ended or not _true(request.query, "follow"):
                await response.write_eof()
                return response
            await moved.wait()

    def _chosen(self, pod: Json, query: Mapping[str, str]) -> Log:
        names = [one["name"] for one in pod["spec"]["containers"]]
        name = pod["metadata"]["name"]
        container = query.get("container") or (names[0] if len(names) == 1 else "")
        if not container:
            told = " ".join(names)
            raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{told}]")
        if container not in names:
            raise bad_request(f"container {container} is not valid for pod {name}")
        runs = self._runs.get((pod["metadata"]["uid"], container), [])
        if _true(query, "previous"):
            if len(runs) < 2:
                raise bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
            return runs[-2]
        if not runs:
            raise bad_request(
                f'container "{container}" in pod "{name}" is waiting to start: {_waiting(pod, container)}'
            )
        return runs[-1]


def _waiting(pod: Json, container: str) -> str:
    for one in pod["status"].get("containerStatuses") or ():
        if one["name"] == container and "waiting" in one["state"]:
            return str(one["state"]["waiting"]["reason"])
    return "ContainerCreating"


def _true(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("true", "1")
