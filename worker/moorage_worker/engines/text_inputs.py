"""Reads the `inputs` of a text task: a string, a list of strings, or objects with a `text`.

Shared by every engine that takes text, so that one model can move between engines without its callers
noticing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from moorage_worker.errors import BadInput
from moorage_worker.json_types import Json, kind

MAX_TEXTS = 1024
Text: TypeAlias = "str | tuple[str, str]"


@dataclass(frozen=True, slots=True)
class TextBatch:
    """The texts of one request. `single` tells whether the caller sent one text bare, not a list."""

    texts: list[Text]
    single: bool


def parse_texts(inputs: Json, *, pairs: bool) -> TextBatch:
    """Read one text or a list of 1 to MAX_TEXTS texts.

    A text is a string or `{"text": "..."}`; with `pairs`, also `{"text": "...", "text_pair": "..."}`.
    Raises BadInput naming the item.
    """
    if not isinstance(inputs, list):
        return TextBatch([_parse_text(inputs, "inputs", pairs)], single=True)
    if not 1 <= len(inputs) <= MAX_TEXTS:
        raise BadInput("inputs", "size", f"must hold 1 to {MAX_TEXTS} texts, got {len(inputs)}")
    return TextBatch(
        [_parse_text(item, f"inputs[{i}]", pairs) for i, item in enumerate(inputs)], single=False
    )


def _parse_text(value: Json, field: str, pairs: bool) -> Text:
    if not isinstance(value, dict):
        return _string(value, field)
    allowed = ("text", "text_pair") if pairs else ("text",)
    for name in value:
        if name not in allowed:
            raise BadInput(
                f"{field}.{name}", "unknown", f"is not a field of a text (known: {', '.join(allowed)})"
            )
    if "text" not in value:
        raise BadInput(f"{field}.text", "required", "is missing")
    text = _string(value["text"], f"{field}.text")
    if value.get("text_pair") is None:
        return text
    return text, _string(value["text_pair"], f"{field}.text_pair")


def _string(value: Json, field: str) -> str:
    if not isinstance(value, str):
        raise BadInput(field, "type", f"must be a string, got {kind(value)}")
    if not value.strip():
        raise BadInput(field, "empty", "must not be empty")
    return value
