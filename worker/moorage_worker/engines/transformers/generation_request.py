"""Reads a request to a language model: prompts or a chat, and how to sample. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from moorage_worker.engines.parameters import Parameters
from moorage_worker.engines.text_inputs import parse_texts
from moorage_worker.errors import BadInput
from moorage_worker.json_types import Json, JsonObject, kind

PARAMETERS = ("max_new_tokens", "temperature", "top_p", "top_k", "stop", "seed")
MAX_NEW_TOKENS, DEFAULT_NEW_TOKENS = 32_768, 256
MAX_MESSAGES = 1024
MAX_STOPS, MAX_STOP_LENGTH = 16, 256
MAX_SEED = 2**63 - 1
ROLES = ("system", "user", "assistant")

Chat: TypeAlias = "list[dict[str, str]]"
Prompt: TypeAlias = "str | Chat"


@dataclass(frozen=True, slots=True)
class Sampling:
    """None: as the model's generation_config.json says. `temperature` 0: always the likeliest token.

    `max_new_tokens` None: DEFAULT_NEW_TOKENS, or what is left of the model's window when that is less.
    """

    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: tuple[str, ...]
    seed: int | None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Texts to go on from, or one chat to answer. `single`: the caller sent one text bare, or a chat."""

    prompts: Sequence[Prompt]
    single: bool
    sampling: Sampling


def read_request(inputs: Json, parameters: JsonObject) -> GenerationRequest:
    """Raises BadInput naming the field and the rule."""
    sampling = _read_sampling(parameters)
    if isinstance(inputs, dict) and "messages" in inputs:
        unknown = next((name for name in inputs if name != "messages"), None)
        if unknown is not None:
            raise BadInput(f"inputs.{unknown}", "unknown", "is not a field here (known: messages)")
        return GenerationRequest([_read_chat(inputs["messages"])], single=True, sampling=sampling)
    batch = parse_texts(inputs, pairs=False)
    return GenerationRequest([str(text) for text in batch.texts], batch.single, sampling)


def _read_sampling(parameters: JsonObject) -> Sampling:
    # `stop` is a string or a list, which is no kind of value that Parameters reads.
    asked = Parameters(parameters, PARAMETERS)
    top_p = asked.number("top_p", 0.0, 1.0)
    if top_p == 0:
        raise BadInput("parameters.top_p", "range", "must be greater than 0")
    return Sampling(
        asked.whole("max_new_tokens", 1, MAX_NEW_TOKENS),
        asked.number("temperature", 0.0, 10.0),
        top_p,
        asked.whole("top_k", 1, 1_000_000),
        _read_stops(parameters.get("stop")),
        asked.whole("seed", 0, MAX_SEED),
    )


def _read_stops(value: Json) -> tuple[str, ...]:
    field = "parameters.stop"
    if value is None:
        return ()
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_STOPS:
        raise BadInput(field, "size", f"must hold at most {MAX_STOPS} strings, got {len(items)}")
    stops = tuple(item for item in items if isinstance(item, str) and 0 < len(item) <= MAX_STOP_LENGTH)
    if len(stops) != len(items):
        raise BadInput(field, "type", f"must be strings of 1 to {MAX_STOP_LENGTH} characters")
    return stops


def _read_chat(value: Json) -> Chat:
    field = "inputs.messages"
    if not isinstance(value, list):
        raise BadInput(field, "type", f"must be a list, got {kind(value)}")
    if not 1 <= len(value) <= MAX_MESSAGES:
        raise BadInput(field, "size", f"must hold 1 to {MAX_MESSAGES} messages, got {len(value)}")
    return [_read_message(item, f"{field}[{i}]") for i, item in enumerate(value)]


def _read_message(value: Json, field: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadInput(field, "type", f"must be an object with role and content, got {kind(value)}")
    unknown = next((name for name in value if name not in ("role", "content")), None)
    if unknown is not None:
        raise BadInput(f"{field}.{unknown}", "unknown", "is not a field of a message (known: role, content)")
    role, content = value.get("role"), value.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise BadInput(f"{field}.role", "choice", f"must be one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise BadInput(f"{field}.content", "type", f"must be a string, got {kind(content)}")
    return {"role": role, "content": content}


def cut_at_stop(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the first stop string in it, and whether there was one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def tokens_to_make(asked: int | None, prompt_tokens: int, window: int | None, field: str) -> int:
    """How many tokens to make at most after a prompt, in a model that sees `window` of them at once.

    Raises BadInput naming `field` when prompt and answer do not fit.
    """
    left = window - prompt_tokens if window is not None else MAX_NEW_TOKENS
    if left < (asked or 1):
        wish = "" if asked is None else f" and max_new_tokens {asked}"
        raise BadInput(field, "length", f"{prompt_tokens} tokens{wish} do not fit the model's {window}")
    return min(DEFAULT_NEW_TOKENS, left) if asked is None else asked
