"""Turns texts into the token arrays that a transformer's graph takes, with the repository's own tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer

from moorage_worker.engines.base import Array, Signature
from moorage_worker.engines.text_inputs import Text
from moorage_worker.errors import BadInput, LoadFailed, cause_line
from moorage_worker.json_types import JsonObject
from moorage_worker.model_folder import ModelFolder
from moorage_worker.tensor_codec import NUMPY_TYPES

TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Tokenizers write an absurd model_max_length when they do not know it.
_SANE_LENGTH = 1_000_000
_DEFAULT_LENGTH = 512
_CHUNK = 32


class TextTokenizer:
    """Encodes texts, padded to the longest of a chunk and cut at the model's window."""

    def __init__(self, tokenizer: Tokenizer, signature: Signature, *, lower_case: bool) -> None:
        self._tokenizer = tokenizer
        self._lower_case = lower_case
        self._types = {spec.name: NUMPY_TYPES[spec.datatype] for spec in signature.inputs}

    def chunks(self, texts: Sequence[Text]) -> Iterator[dict[str, Array]]:
        """The graph's inputs for each run of up to 32 texts, in order; arrays are [texts, tokens].

        Raises BadInput when texts hold nothing the tokenizer knows as a token.
        """
        for start in range(0, len(texts), _CHUNK):
            yield self._encode(texts[start : start + _CHUNK], start)

    def _encode(self, texts: Sequence[Text], start: int) -> dict[str, Array]:
        prepared = [_lower(text) for text in texts] if self._lower_case else list(texts)
        encodings = self._tokenizer.encode_batch(prepared)
        for i, encoding in enumerate(encodings):
            if not any(encoding.attention_mask):
                raise BadInput(f"inputs[{start + i}]", "empty", "has no token that the model knows")
        columns = {
            "input_ids": [e.ids for e in encodings],
            "attention_mask": [e.attention_mask for e in encodings],
            "token_type_ids": [e.type_ids for e in encodings],
        }
        return {name: np.array(columns[name], dtype=kind) for name, kind in self._types.items()}


def _lower(text: Text) -> Text:
    return text.lower() if isinstance(text, str) else (text[0].lower(), text[1].lower())


def load_tokenizer(folder: ModelFolder, config: JsonObject, signature: Signature) -> TextTokenizer:
    """Read `tokenizer.json` and set padding and truncation. Raises LoadFailed."""
    foreign = [spec.name for spec in signature.inputs if spec.name not in TOKEN_INPUTS]
    if foreign:
        raise LoadFailed(
            f"graph input {foreign[0]} is none that a text task fills ({', '.join(TOKEN_INPUTS)}); "
            "serve this model with task tensors"
        )
    if not folder.has("tokenizer.json"):
        raise LoadFailed("tokenizer.json is missing: a text task needs it")
    try:
        tokenizer = Tokenizer.from_file(str(folder.path("tokenizer.json")))
    except Exception as error:  # the library raises bare Exception
        raise LoadFailed(f"tokenizer.json cannot be read: {cause_line(error)}") from error
    settings = folder.json_object("tokenizer_config.json") or {}
    pad_token, pad_id = _padding(tokenizer, settings, config)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=pad_token)
    sentence = folder.json_object("sentence_bert_config.json") or {}
    tokenizer.enable_truncation(max_length=_max_length(sentence, settings, config))
    return TextTokenizer(tokenizer, signature, lower_case=sentence.get("do_lower_case") is True)


def _padding(tokenizer: Tokenizer, settings: JsonObject, config: JsonObject) -> tuple[str, int]:
    token = settings.get("pad_token")
    if isinstance(token, dict):  # an AddedToken, written out
        token = token.get("content")
    if isinstance(token, str) and (known := tokenizer.token_to_id(token)) is not None:
        return token, known
    declared = config.get("pad_token_id")
    pad_id = declared if isinstance(declared, int) else 0
    return tokenizer.id_to_token(pad_id) or "[PAD]", pad_id


def _max_length(sentence: JsonObject, settings: JsonObject, config: JsonObject) -> int:
    candidates = (
        sentence.get("max_seq_length"),
        settings.get("model_max_length"),
        config.get("max_position_embeddings"),
    )
    for length in candidates:
        if isinstance(length, int) and 0 < length < _SANE_LENGTH:
            return length
    return _DEFAULT_LENGTH
