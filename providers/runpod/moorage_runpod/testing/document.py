"""RunPod's own OpenAPI document as the judge of both sides.

`openapi.json` is the part of the document of REST v2 (2.0.0) that the fake serves, without its prose. What a
client sends is held to it, and so is what the fake answers: a fake that drifts from it proves nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jsonschema_rs import Draft202012Validator, Registry, ValidationError, ValidationErrorKind

# The document and bodies are JSON of any shape; the document itself is what types them.
Json = Any

_FILE = "openapi.json"
_URI = "urn:runpod"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path: its JSON of the document, and where in the document it stands."""

    path: str
    method: str
    told: Mapping[str, Json]

    @property
    def pointer(self) -> str:
        return f"#/paths/{_escaped(self.path)}/{self.method.lower()}"

    @property
    def has_body(self) -> bool:
        return "requestBody" in self.told


class Document:
    def __init__(self) -> None:
        self.json: Mapping[str, Json] = json.loads(
            files("moorage_runpod.testing").joinpath(_FILE).read_text("utf-8")
        )
        self._registry = Registry([(_URI, dict(self.json))])
        self._validators: dict[str, Draft202012Validator] = {}

    def operation(self, method: str, path: str) -> Operation | None:
        """`path` is the template: /v2/serverless/{id}."""
        told = self.json["paths"].get(path, {}).get(method.lower())
        return None if told is None else Operation(path, method, told)

    def body_errors(self, operation: Operation, body: Json) -> list[str]:
        """What is wrong with a request's body, in RunPod's words: `$: missing property 'name'`."""
        pointer = f"{operation.pointer}/requestBody/content/{_escaped('application/json')}/schema"
        return self._errors(pointer, body)

    def query_errors(self, operation: Operation, query: Mapping[str, str]) -> list[str]:
        """What is wrong with the parameters that are known; others are ignored, as RunPod does."""
        errors = []
        for parameter in operation.told.get("parameters", []):
            pointer = parameter.get("$ref", "")
            told = self._at(pointer) if pointer else parameter
            if told["in"] != "query" or told["name"] not in query:
                continue
            if not pointer:
                continue  # written in place: a plain string each time
            value = _from_query(query[told["name"]], told["schema"])
            errors += [
                f"{told['name']}: {e.partition(': ')[2]}" for e in self._errors(f"{pointer}/schema", value)
            ]
        return errors

    def answer_errors(self, operation: Operation, status: int, content_type: str, body: bytes) -> list[str]:
        """What the document does not allow about an answer."""
        answers = operation.told["responses"]
        name = str(status) if str(status) in answers else "default"
        told, pointer = answers[name], f"{operation.pointer}/responses/{name}"
        if "$ref" in told:
            pointer = told["$ref"]
            told = self._at(pointer)
        content = told.get("content")
        if content is None:
            return [f"{status} must have no body"] if body else []
        if content_type not in content:
            return [f"{status} must not be {content_type}"]
        if not content_type.endswith("json"):
            return []
        try:
            value = json.loads(body)
        except ValueError as error:
            return [f"{status} is no JSON: {error}"]
        return self._errors(f"{pointer}/content/{_escaped(content_type)}/schema", value)

    def _at(self, pointer: str) -> Json:
        found = self.json
        for part in pointer.removeprefix("#/").split("/"):
            found = found[part]
        return found

    def _errors(self, pointer: str, value: Json) -> list[str]:
        validator = self._validators.get(pointer)
        if validator is None:
            validator = Draft202012Validator(
                {"$ref": _URI + quote(pointer, safe="#/~")},
                registry=self._registry,
                validate_formats=True,
                # RunPod's own request URLs hold `{job_id}`, which no URI may.
                formats={"uri": lambda _: True},
            )
            self._validators[pointer] = validator
        return [text for error in validator.iter_errors(value) for text in _told(error)]


@cache
def document() -> Document:
    return Document()


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _from_query(text: str, schema: Mapping[str, Json]) -> Json:
    if schema.get("type") == "array":
        return text.split(",")
    if schema.get("type") == "integer" and re.fullmatch(r"-?\d+", text):
        return int(text)
    return text


def _told(error: ValidationError) -> Iterator[str]:
    where = "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.instance_path)
    match error.kind:
        case ValidationErrorKind.Required(property=name):
            yield f"{where}: missing property '{name}'"
        case (
            ValidationErrorKind.UnevaluatedProperties(unexpected=names)
            | ValidationErrorKind.AdditionalProperties(unexpected=names)
        ):
            yield f"{where}: additional properties {', '.join(repr(n) for n in names)} not allowed"
        case _:
            yield f"{where}: {error.message}"
