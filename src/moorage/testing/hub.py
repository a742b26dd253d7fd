"""A Hub on loopback that serves folders as repositories, for the real `huggingface_hub` client.

Tests and the demo need the Hub's answers, its errors among them, on machines that cannot reach it. This is a
real server, so that the real client, its redirect and range handling, and its error mapping run too.

As a process of its own: `python -m moorage.testing.hub --repo acme/digits=PATH --port 0`
prints `{"url": …}` and serves until it is told to end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from moorage.testing.hub_repository import Repository, RepositoryFile, Snapshot, read_folder

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CHUNK = 1024**2
_POLICY = '"fixed window";"api";q=500;w=300'


class Fault(Enum):
    """How the Hub can misbehave, for all requests until it is set back to NONE."""

    NONE = auto()
    DOWN = auto()  # the connection ends without an answer
    ERROR = auto()  # 503
    SLOW = auto()  # no answer until the fault is over
    RATE_LIMITED = auto()  # 429, as the Hub says it
    GARBAGE = auto()  # 200 with what is no answer of a Hub


@dataclass(frozen=True, slots=True)
class SeenRequest:
    method: str
    path: str
    authorized: bool
    range: str | None
    user_agent: str


class HubStandIn:
    """`async with HubStandIn() as hub:` serves on `hub.url`; `add_repo` before or while it runs.

    Tokens are those that some repository was given, and those of `accept_token`; any other is refused as the
    Hub refuses it. `requests` lists all that came in.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._address = (host, port)
        self._repositories: dict[str, Repository] = {}
        self._tokens: set[str] = set()
        self._fault = Fault.NONE
        self._fault_over = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.reset_seconds = 55  # what a rate-limited answer tells to wait
        self.requests: list[SeenRequest] = []
        self._came = asyncio.Condition()

    # -- what it serves -----------------------------------------------------------------------------

    async def add_repo(
        self,
        repo_id: str,
        folder: Path,
        *,
        private: bool = False,
        gated: bool = False,
        disabled: bool = False,
        token: str | None = None,
        branch: str = "main",
    ) -> str:
        """Reads the folder and serves it as `branch`; returns the commit sha. Again: a new commit of it.

        `token` may read the repository where it is private or gated."""
        snapshot = await asyncio.to_thread(read_folder, folder)
        repository = self._repositories.setdefault(repo_id, Repository(repo_id))
        repository.private, repository.gated, repository.disabled = private, gated, disabled
        repository.branches[branch] = snapshot
        if token is not None:
            repository.tokens.add(token)
            self._tokens.add(token)
        return snapshot.sha

    def accept_token(self, token: str) -> None:
        """A valid token of an account that may read public repositories only."""
        self._tokens.add(token)

    @property
    def fault(self) -> Fault:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault
        self._fault_over.set()
        self._fault_over = asyncio.Event()

    async def came(self, count: int) -> None:
        """Returns when `count` requests have come in."""
        async with self._came:
            await self._came.wait_for(lambda: len(self.requests) >= count)

    # -- running ------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        if self._runner is None or not self._runner.addresses:
            raise RuntimeError("the Hub stand-in is not running")
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        app = web.Application(middlewares=[self._misbehave])
        model = "/api/models/{owner}/{name}"
        app.add_routes(
            [
                web.get(model, self._info),
                web.get(model + "/revision/{revision}", self._info),
                web.get(model + "/auth-check", self._auth_check),
                web.get(model + "/tree/{revision}", self._tree),
                web.get(model + "/tree/{revision}/{folder:.+}", self._tree),
                web.post(model + "/paths-info/{revision}", self._paths_info),
                web.get("/{owner}/{name}/resolve/{revision}/{file:.+}", self._resolve),  # HEAD comes with it
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address).start()

    async def stop(self) -> None:
        self.fault = Fault.NONE
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # -- answers ------------------------------------------------------------------------------------

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(_seen(request))
        async with self._came:
            self._came.notify_all()
        match self._fault:
            case Fault.DOWN:
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
            case Fault.ERROR:
                return web.json_response({"error": "Service Unavailable"}, status=503)
            case Fault.RATE_LIMITED:
                limit = {"ratelimit": f'"api";r=0;t={self.reset_seconds}', "ratelimit-policy": _POLICY}
                return web.json_response({"error": "rate limited"}, status=429, headers=limit)
            case Fault.GARBAGE:
                return web.Response(text="<html>It works!</html>", content_type="text/html")
            case Fault.SLOW:
                await self._fault_over.wait()
        try:
            return await handler(request)
        except _Refused as refused:
            return refused.answer()

    async def _info(self, request: web.Request) -> web.StreamResponse:
        repository = self._visible(request)
        snapshot = _snapshot(repository, request.match_info.get("revision", "main"))
        told = repository.as_model(snapshot, blobs=request.query.get("blobs", "").lower() == "true")
        expand = request.query.getall("expand", [])
        if expand:
            told = {key: told[key] for key in ("_id", "id", *expand) if key in told}
        return web.json_response(
            told, headers={"ratelimit": '"api";r=499;t=300', "ratelimit-policy": _POLICY}
        )

    async def _auth_check(self, request: web.Request) -> web.StreamResponse:
        self._readable(request)
        return web.json_response({})

    async def _tree(self, request: web.Request) -> web.StreamResponse:
        snapshot = _snapshot(self._visible(request), request.match_info["revision"])
        folder = request.match_info.get("folder", "").strip("/")
        recursive = request.query.get("recursive", "").lower() in ("true", "1")
        return web.json_response(_tree_of(snapshot, f"{folder}/" if folder else "", recursive=recursive))

    async def _paths_info(self, request: web.Request) -> web.StreamResponse:
        snapshot = _snapshot(self._visible(request), request.match_info["revision"])
        if request.content_type == "application/json":
            wanted = set(map(str, (await request.json()).get("paths", [])))
        else:
            wanted = set(map(str, (await request.post()).getall("paths", [])))
        known = [file for name, file in snapshot.files.items() if name in wanted]
        return web.json_response([file.as_tree_entry() for file in known])

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        snapshot = _snapshot(self._readable(request), request.match_info["revision"])
        file = snapshot.files.get(request.match_info["file"])
        if file is None:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        headers = {
            "ETag": f'"{file.etag}"',
            "X-Repo-Commit": snapshot.sha,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        return await _send(request, file, headers)

    # -- who may see what ---------------------------------------------------------------------------

    def _visible(self, request: web.Request) -> Repository:
        """The repository, if its existence may be known."""
        token = _token(request)
        if token is not None and token not in self._tokens:
            raise _Refused(401, None, "Invalid credentials in Authorization header")
        repository = self._repositories.get("{owner}/{name}".format(**request.match_info))
        if repository is None or (repository.private and token not in repository.tokens):
            raise _Refused(401 if token is None else 404, "RepoNotFound", "Repository not found")
        if repository.disabled:
            raise _Refused(403, None, "Access to this resource is disabled.")
        return repository

    def _readable(self, request: web.Request) -> Repository:
        """The repository, if its files may be read."""
        repository = self._visible(request)
        token = _token(request)
        if repository.gated and token not in repository.tokens:
            message = f"Access to model {repository.repo_id} is restricted."
            raise _Refused(401 if token is None else 403, "GatedRepo", message)
        return repository


class _Refused(Exception):
    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self._status, self._code, self._message = status, code, message

    def answer(self) -> web.Response:
        headers = {"X-Error-Message": self._message, "X-Request-Id": "Root=1-stand-in"}
        if self._code is not None:
            headers["X-Error-Code"] = self._code
        return web.json_response({"error": self._message}, status=self._status, headers=headers)


def _seen(request: web.Request) -> SeenRequest:
    headers = request.headers
    return SeenRequest(
        request.method,
        request.path,
        "Authorization" in headers,
        headers.get("Range"),
        headers.get("User-Agent", ""),
    )


def _token(request: web.Request) -> str | None:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if kind == "Bearer" and token else None


def _snapshot(repository: Repository, revision: str) -> Snapshot:
    snapshot = repository.snapshot(revision)
    if snapshot is None:
        raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return snapshot


def _tree_of(snapshot: Snapshot, prefix: str, *, recursive: bool) -> list[dict[str, object]]:
    inside = [file for name, file in snapshot.files.items() if name.startswith(prefix)]
    if not inside:
        raise _Refused(404, "EntryNotFound", f"{prefix} does not exist")
    if recursive:
        return [file.as_tree_entry() for file in inside]
    folders = sorted(
        {f.name[len(prefix) :].partition("/")[0] for f in inside if "/" in f.name[len(prefix) :]}
    )
    return [
        *({"type": "directory", "oid": "0" * 40, "size": 0, "path": f"{prefix}{name}"} for name in folders),
        *(file.as_tree_entry() for file in inside if "/" not in file.name[len(prefix) :]),
    ]


async def _send(request: web.Request, file: RepositoryFile, headers: dict[str, str]) -> web.StreamResponse:
    begin, end, partial = _span(request.headers.get("Range"), file.size)
    response = web.StreamResponse(status=206 if partial else 200, headers=headers)
    if partial:
        response.headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size}"
    response.content_length = end - begin
    await response.prepare(request)
    if request.method != "HEAD":
        with await asyncio.to_thread(file.path.open, "rb") as stream:
            stream.seek(begin)
            while begin < end:
                chunk = await asyncio.to_thread(stream.read, min(_CHUNK, end - begin))
                await response.write(chunk)
                begin += len(chunk)
    await response.write_eof()
    return response


def _span(wanted: str | None, size: int) -> tuple[int, int, bool]:
    """(first byte, one after the last, whether it is a part) of a Range header; only a..b is understood."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if found is None or int(found[1]) >= size:
        return 0, size, False
    last = int(found[2]) if found[2] else size - 1
    return int(found[1]), min(last + 1, size), True


# -- as a process of its own ------------------------------------------------------------------------


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m moorage.testing.hub", description=__doc__)
    parser.add_argument("--repo", action="append", required=True, metavar="OWNER/NAME=PATH")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    return parser.parse_args(argv)


async def serve(repos: Sequence[str], port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    hub = HubStandIn(port=port)
    for entry in repos:
        repo_id, _, folder = entry.partition("=")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id) or not folder:
            raise ValueError(f"--repo {entry}: must be OWNER/NAME=PATH")
        await hub.add_repo(repo_id, Path(folder))
    async with hub:
        sys.stdout.write(json.dumps({"url": hub.url}) + "\n")
        sys.stdout.flush()
        await ended.wait()


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    try:
        asyncio.run(serve(arguments.repo, arguments.port))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
