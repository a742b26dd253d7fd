"""`infer`: one request to a running model."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Annotated, Any  # a model's inputs are its own

import typer
from rich.json import JSON
from rich.text import Text

from moorage.cli import rendering
from moorage.cli.failures import Usage
from moorage.cli.session import Json, Key, Url, session


def infer(
    model: Annotated[str, typer.Argument(help="Deployment id or name, or the model's own id.")],
    inputs: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="Text, JSON, @FILE (an image is sent as base64), or - for stdin."
        ),
    ],
    parameters: Annotated[str | None, typer.Option(metavar="JSON", help="Such as '{\"top_k\": 3}'.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Send a request to a model, and print its answer."""
    with session(url, key, as_json) as s:
        body: dict[str, Any] = {"inputs": read_input(inputs)}
        if parameters is not None:
            body["parameters"] = _json_object("--parameters", parameters)
        answer = s.client.infer(model, body)
        outputs = answer.get("outputs", answer)
        took = answer.get("metadata", {}).get("inference_time_ms")
        s.out.result(answer, rendering.scores(outputs) or JSON.from_data(outputs))
        if took is not None and not as_json:
            s.out.note(Text(f"{took:.1f} ms in the model", "dim"))


def read_input(text: str) -> Any:
    """What `inputs` becomes: `@FILE` its content, `{`, `[` or `"` JSON, everything else the text itself."""
    if text == "-":
        return _content(sys.stdin.buffer.read(), "-")
    if text.startswith("@") and len(text) > 1:
        path = Path(text[1:])
        try:
            return _content(path.read_bytes(), path.name)
        except OSError as error:
            raise Usage(f"{path} cannot be read: {error.strerror}.") from error
    return _json("INPUT", text) if text.lstrip().startswith(("{", "[", '"')) else text


def _content(raw: bytes, name: str) -> Any:
    """Of a file: JSON by its name, text if it is text, else base64."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode("ascii")
    if name.endswith(".json"):
        return _json(name, text)
    return base64.b64encode(raw).decode("ascii") if "\x00" in text else text


def _json_object(what: str, text: str) -> dict[str, Any]:
    value = _json(what, text)
    if not isinstance(value, dict):
        raise Usage(f"{what} must be a JSON object.", "Such as '{\"top_k\": 3}'.")
    return value


def _json(what: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Usage(f"{what} is not JSON: {error}.") from error
