#!/usr/bin/env python3
"""Deploys a model with Moorage, follows how it goes, asks it once, writes the answer, and deletes it.

    MOORAGE_KEY=… python scripts/deploy_and_infer.py http://127.0.0.1:8080 stabilityai/sdxl-turbo \\
        --provider runpod --input "A harbour at dawn" --output harbour.png

The key is Moorage's, or a RunPod key, which then is the account that the model runs on. HF_TOKEN in the
environment is sent along for models that need it. The answer goes to standard output as JSON, with pictures
and other media in files; progress goes to standard error.

Ctrl-C, and any failure, deletes the deployment; --keep leaves it, and says how to delete it. The same
--idempotency-key with the same arguments goes on with the deployment that it made before.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import json
import mimetypes
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any  # what a model takes and gives is its own

if TYPE_CHECKING:  # the type checker starts at the root, a script in its own folder
    from scripts.http_api import EXIT_CODES, Event, Exit, Failed, HttpApi, run, say
else:
    from http_api import EXIT_CODES, Event, Exit, Failed, HttpApi, run, say

INFER_SECONDS = 900.0  # a worker that scales from zero loads the model first
REMOVAL_SECONDS = 300.0

READY, FAILED, DELETED = "deployment.ready", "deployment.failed", "deployment.deleted"
Tell = Callable[[Event], None]


class OneDeployment:
    """A deployment that this process answers for. All requests to create it carry one idempotency key, so
    there is never a second one, and what became of a lost request can be found out by sending it again."""

    def __init__(self, api: HttpApi, body: dict[str, Any], key: str) -> None:
        self._api = api
        self._body = body
        self._key = key
        self._id: str | None = None
        self.name = str(body.get("name", "The deployment"))
        self.may_exist = False
        self._is_going = False

    @property
    def id(self) -> str:
        assert self._id is not None
        return self._id

    @property
    def path(self) -> str:
        return f"/v1/deployments/{self.id}"

    def create(self) -> None:
        self.may_exist = True
        headers = {"idempotency-key": self._key}
        try:
            accepted = self._api.ask("POST", "/v1/deployments", body=self._body, headers=headers)
        except Failed as failed:
            self.may_exist = not failed.was_refused
            raise
        self._id, self.name = accepted["deployment_id"], accepted["name"]

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = self._api.ask("GET", self.path)
        return found

    def until_ready(self, tell: Tell, seconds: float) -> None:
        """Raises Failed with the deployment's own cause."""
        ended = self._until((READY, FAILED, DELETED), tell, seconds)
        if ended == READY:
            return
        error = self.document()["error"] or {}
        told = " ".join(filter(None, (error.get("detail"), error.get("advice"))))
        if ended == DELETED:
            self.may_exist = False
            told = told or "Its idempotency key is used up: give another one."
        raise Failed(f"{self.name} was not deployed ({ended.removeprefix('deployment.')}). {told}")

    def infer(self, inputs: Any, parameters: dict[str, Any]) -> dict[str, Any]:
        body = {"inputs": inputs, "parameters": parameters}
        answer = self._api.ask("POST", f"/v1/models/{self.id}/infer", body=body, seconds=INFER_SECONDS)
        if not isinstance(answer, dict) or "outputs" not in answer:
            raise Failed("The model's answer has no outputs.")
        return answer

    def remove(self, tell: Tell, seconds: float = REMOVAL_SECONDS) -> None:
        """Returns when the provider has confirmed that nothing is left."""
        if self._id is None and not self._is_made():
            self.may_exist = False
            return
        self._api.ask("DELETE", self.path)
        self._is_going = True
        self._until((DELETED,), tell, seconds)
        self.may_exist = False

    def left(self) -> str:
        """What remains and how to end it, in words."""
        where = f"{self._api.base_url}/v1/deployments"
        curl = 'curl -H "Authorization: Bearer $MOORAGE_KEY"'
        if self._id is None:
            return f"{self.name} may have been made, and cost money. Look for it:\n  {curl} {where}"
        if self._is_going:
            told = "is being deleted, which the service does by itself. To see whether it is over:"
            return f"{self.name} {told}\n  {curl} {where}/{self.id}"
        return (
            f"{self.name} is left, and costs what it costs. To end it:\n  {curl} -X DELETE {where}/{self.id}"
        )

    def _is_made(self) -> bool:
        """Of a create whose answer was lost, or that nobody waited for: sent again it tells the id."""
        try:
            self.create()
        except Failed as failed:
            if failed.was_refused:
                return False
            raise
        return True

    def _until(self, ends: tuple[str, ...], tell: Tell, seconds: float) -> str:
        for event in self._api.events(f"{self.path}/events", seconds=seconds):
            tell(event)
            if event.type in ends and (event.type != READY or self.document()["status"] == "ready"):
                return event.type  # a deployment that was made before may have been ready, and is no more
        raise AssertionError  # the events have no end


@contextlib.contextmanager
def removed_at_the_end(deployment: OneDeployment, tell: Tell) -> Iterator[None]:
    """Whatever happens inside, the deployment is deleted; if that is interrupted too, it is said what is
    left."""
    try:
        yield
    finally:
        if deployment.may_exist:
            try:
                say(f"Deleting {deployment.name}.")
                deployment.remove(tell)
            except BaseException:  # Ctrl-C too
                say(deployment.left())
                raise
            say("Nothing of it is left.")


@contextlib.contextmanager
def left_at_the_end(deployment: OneDeployment) -> Iterator[None]:
    try:
        yield
    finally:
        if deployment.may_exist:
            say(deployment.left())


class NewEvents:
    """Tells each event once, though a removal reads them from the first again."""

    def __init__(self) -> None:
        self._told: set[str | None] = set()

    def __call__(self, event: Event) -> None:
        if event.id not in self._told:
            self._told.add(event.id)
            what = event.type.removeprefix("deployment.")
            say(f"{event.data['at'][11:23]}  {what:<18}  {event.data['message']}")


# -- what goes in and comes out ------------------------------------------------------------------------------


def request_body(arguments: argparse.Namespace) -> dict[str, Any]:
    fields = {
        "name": arguments.name,
        "hf_model_id": arguments.model,
        "provider": arguments.provider,
        "workers_min": arguments.workers_min,
        "workers_max": arguments.workers_max,
        "hf_token": os.environ.get("HF_TOKEN") or None,  # options are seen by others
    }
    return {name: value for name, value in fields.items() if value is not None} | dict(arguments.set)


def read_input(text: str) -> Any:
    """`@FILE` is its content (an image as base64, .json as JSON); `{` and `[` begin JSON; else it is text."""
    if not text.startswith("@"):
        return _json(text) if text.lstrip().startswith(("{", "[")) else text
    path = Path(text[1:])
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Failed(f"{path} cannot be read: {error.strerror}.", Exit.USAGE) from None
    with contextlib.suppress(UnicodeDecodeError):
        if b"\0" not in raw:
            return _json(raw.decode()) if path.suffix == ".json" else raw.decode()
    return base64.b64encode(raw).decode("ascii")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Failed(f"The input is not JSON: {error}.", Exit.USAGE) from None


class MediaFiles:
    """Writes what an answer holds as base64 into files: `output`, then `output` with -2, -3 before its
    ending."""

    def __init__(self, output: Path | None, name: str) -> None:
        self._output = output
        self._name = name
        self.written: list[Path] = []

    def taken_from(self, value: Any) -> Any:
        """The same, with the paths of files in place of their bytes."""
        if isinstance(value, list):
            return [self.taken_from(item) for item in value]
        if not isinstance(value, dict):
            return value
        media, kind = value.get("base64"), value.get("content_type")
        if isinstance(media, str) and isinstance(kind, str):
            rest = {key: part for key, part in value.items() if key != "base64"}
            return {**rest, "file": str(self._write(media, kind))}
        return {key: self.taken_from(part) for key, part in value.items()}

    def _write(self, media: str, kind: str) -> Path:
        try:
            data = base64.b64decode(media, validate=True)
        except binascii.Error:
            raise Failed(f"The answer's {kind} is not base64.") from None
        first = self._output or Path(self._name + (mimetypes.guess_extension(kind) or ".bin"))
        number = len(self.written) + 1
        path = first if number == 1 else first.with_stem(f"{first.stem}-{number}")
        write(path, data)
        say(f"{path}: {kind}, {len(data):,} bytes")
        self.written.append(path)
        return path


def write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}.") from None


# -- the command line ----------------------------------------------------------------------------------------


def field(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value being JSON where it is JSON."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError("write it as NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return found


def add_access(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base_url", metavar="BASE_URL", help="of Moorage, such as http://127.0.0.1:8080")
    parser.add_argument(
        "--key",
        default=os.environ.get("MOORAGE_KEY"),
        help="Moorage's (mrg_…) or RunPod's (rpa_…); rather set MOORAGE_KEY: other users can see options",
    )


def add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--provider", help="auto (default), or one by name, such as runpod")
    parser.add_argument("--workers-min", type=int, metavar="N", help="that always run, and cost")
    parser.add_argument("--workers-max", type=int, metavar="N")
    parser.add_argument(
        "--set",
        type=field,
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any other field of POST /v1/deployments, such as gpu_tier=L4; repeat it",
    )
    parser.add_argument("--parameters", type=json_object, default={}, metavar="JSON", help="of the inference")
    parser.add_argument(
        "--timeout", type=float, default=2700.0, metavar="SECONDS", help="until it is ready (default: 2700)"
    )


def arguments_of(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_access(parser)
    parser.add_argument("model", metavar="MODEL", help="a Hugging Face id, owner/name")
    parser.add_argument("--input", required=True, metavar="TEXT|@FILE", help="text, JSON, or a file")
    add_request(parser)
    parser.add_argument("--name", help="of the deployment; made up by the service when absent")
    parser.add_argument("--idempotency-key", metavar="KEY", help="one deployment each; new when absent")
    parser.add_argument("--keep", action="store_true", help="do not delete it")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="of the picture; of the answer's JSON where it holds none (default for a picture: NAME.png)",
    )
    return parser.parse_args(argv)


def main() -> int:
    arguments = arguments_of()
    inputs = read_input(arguments.input)
    output: Path | None = arguments.output
    if output is not None and (output.is_dir() or not output.resolve().parent.is_dir()):
        raise Failed(f"--output {output}: there is no folder for this file, or it is one.", Exit.USAGE)
    with HttpApi(arguments.base_url, arguments.key, "deploy-and-infer") as api:
        key = arguments.idempotency_key or str(uuid.uuid4())
        deployment = OneDeployment(api, request_body(arguments), key)
        tell = NewEvents()
        with left_at_the_end(deployment) if arguments.keep else removed_at_the_end(deployment, tell):
            say(f"Deploying {arguments.model}, idempotency key {key}.")
            deployment.create()
            say(f"{deployment.name} is {deployment.id}.")
            deployment.until_ready(tell, arguments.timeout)
            say("Asking it.")
            answer = deployment.infer(inputs, arguments.parameters)
            media = MediaFiles(output, deployment.name)
            shown = json.dumps(media.taken_from(answer), ensure_ascii=False, indent=2)
            if output is not None and not media.written:
                write(output, shown.encode() + b"\n")
            print(shown, flush=True)
            cost = deployment.document()["cost"]
            say(f"Cost so far: {cost['accrued']:.6f} {cost['currency']}.")
    return Exit.OK


if __name__ == "__main__":
    run(main)
