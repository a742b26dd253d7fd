"""A small Hub on loopback: lists and serves the files of a folder, as the real client asks for them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" + "0" * 34


class Hub:
    """What it serves and has sent, and two switches: files held back, and transfers cut after some bytes."""

    def __init__(self, repositories: dict[str, Path], port: int = 0) -> None:
        self.repositories = repositories
        self._port = port
        self.sent: list[str] = []
        self.let_files_through = threading.Event()
        self.let_files_through.set()
        self.file_asked = threading.Event()
        self.file_cut = threading.Event()
        self.cut_after: dict[str, int] = {}
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator[Hub]:
        server = ThreadingHTTPServer(("127.0.0.1", self._port), type("Handler", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.let_files_through.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), parts[4:])
        else:
            self._file("/".join(parts[:2]), "/".join(parts[4:]))

    def _api(self, name: str, rest: list[str]) -> None:
        if name.startswith("gated/"):
            self._send(403, b'{"error":"gated"}', {"X-Error-Code": "GatedRepo"})
        elif name not in self.hub.repositories:
            self._send(404, b'{"error":"no"}', {"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
            self._send(404, b'{"error":"no"}', {"X-Error-Code": "RevisionNotFound"})
        elif rest[:1] == ["tree"]:
            self._json([self._entry(path) for path in self._files(name)])
        else:
            self._json({"id": name, "sha": COMMIT, "siblings": []})

    def _files(self, name: str) -> list[Path]:
        return sorted(path for path in self.hub.repositories[name].rglob("*") if path.is_file())

    def _entry(self, path: Path) -> dict[str, object]:
        root = next(root for root in self.hub.repositories.values() if path.is_relative_to(root))
        size = path.stat().st_size
        return {"type": "file", "path": path.relative_to(root).as_posix(), "size": size, "oid": _hash(path)}

    def _file(self, name: str, file: str) -> None:
        path = self.hub.repositories[name] / file
        if not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{_hash(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        body = path.read_bytes()
        if self.command == "HEAD":
            self._send(200, body, headers)
            return
        self.hub.file_asked.set()
        self.hub.let_files_through.wait()
        self.hub.sent.append(file)
        if file in self.hub.cut_after:
            self._send(200, body, headers, cut=self.hub.cut_after[file])
            self.hub.file_cut.set()
            return
        wanted = self.headers.get("Range")
        if wanted:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self._send(206, body[start:], headers)
        else:
            self._send(200, body, headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:cut])
        self.close_connection = cut is not None

    def log_message(self, *_args: object) -> None:
        """Quiet: requests are in `Hub.sent`."""


def _hash(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
