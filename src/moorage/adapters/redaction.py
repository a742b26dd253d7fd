"""What is logged, rebuilt without its secrets.

A renderer gets nothing but what `plain` has made: searched text, numbers, lists and mappings of such. So no
secret can come out by a way that was not thought of, a `repr` of a stranger's object or an exception's text
among them. Three rules find secrets: the name of a value, the form of a text (tokens of ours and of
others, `name=value`, keys, passwords in URLs), and the very values that this process was given as secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from functools import lru_cache
from typing import Any  # keys of mappings that others made

REDACTED = "[redacted]"
LONGEST_TEXT = 20_000  # characters of one value; a longer one is cut
DEEPEST = 8  # mappings and lists within each other
MOST_ITEMS = 200  # of one mapping or list
LONGEST_NUMBER = 256  # bits: a longer one may take for ever to be written
SHORTEST_KNOWN = 8  # characters: a shorter value is found in too many innocent places

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

_WORDS = (
    r"passw(?:or)?d|passphrase|secret|token|authorization|cookie|credentials?(?![_-]?ids?\b)|kubeconfig"
    r"|signature|(?:api|private|access|secret|signing)[_-]?keys?(?![_-]?ids?\b)"
)
_NAME = re.compile(_WORDS, re.IGNORECASE)
_PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_FORMS = re.compile(
    r"(mrg_)[A-Za-z0-9_\-]{8,}|(hf_)[A-Za-z0-9]{8,}|(rpa_)[A-Za-z0-9]{8,}|(whsec_)[A-Za-z0-9+/=_\-]{8,}"
    r"|(eyJ)[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*)*"
)
_SCHEMES = re.compile(r"\b(Bearer|Basic)\s+[^\s\"',;]+", re.IGNORECASE)
_IN_URL = re.compile(r"(://[^/\s:@\"']*:)[^/\s@\"']+(?=@)")
_VALUE = r"(?:\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?|[^\s,;&\"'()\[\]{}]+)"
# `token=…`, and `"token": "…"` of JSON or of a dictionary's repr
_ASSIGNED = re.compile(
    rf"((?:{_WORDS})[\w\-]{{0,64}}(?:\s*=\s*|[\"']\s*:\s*b?(?=[\"'])))({_VALUE})", re.IGNORECASE
)
_HEADERS = re.compile(
    r"\b((?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]{0,64}(?:key|token))(\s*:\s*)[^\r\n]+",
    re.IGNORECASE,
)
# One of these, in lower case, is in every text that any of the forms above is in.
_SIGNS = (
    *("mrg_", "hf_", "rpa_", "whsec_", "eyj", "://", "-----begin", "bearer", "basic"),
    *("passw", "passphrase", "secret", "token", "authorization", "cookie", "credential", "kubeconfig"),
    *("signature", "key"),
)
_LISTED = re.compile(r"[,\s]+(?:[\w\-]+:)?")  # secrets come in lists: `k1:…,k2:…`


class Redactor:
    """`known` are secrets word for word, or lists of them; one that is too short to be told from other text
    is left out."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        parts = {part for text in known for part in (text, *_LISTED.split(text), text.partition(":")[2])}
        told = sorted((part for part in parts if len(part) >= SHORTEST_KNOWN), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, told))) if told else None

    def text(self, text: str) -> str:
        """The text without what looks like a secret, or is one."""
        length, text = len(text), text[: 2 * LONGEST_TEXT]  # a search takes its time, on the loop
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        if len(text) < SHORTEST_KNOWN:
            return text
        lowered = text.lower()
        if any(sign in lowered for sign in _SIGNS):  # most texts have none, and cost no more than this
            text = _PRIVATE_KEY.sub(rf"\1{REDACTED}", text)
            text = _IN_URL.sub(rf"\1{REDACTED}", text)
            text = _FORMS.sub(_begun, text)
            text = _ASSIGNED.sub(rf"\1{REDACTED}", text)
            text = _HEADERS.sub(rf"\1\2{REDACTED}", text)
            text = _SCHEMES.sub(rf"\1 {REDACTED}", text)
        if max(length, len(text)) <= LONGEST_TEXT:
            return text
        return f"{text[:LONGEST_TEXT]}… ({length} characters)"

    def mapping(self, values: Mapping[Any, object], depth: int = 0) -> dict[str, Plain]:
        """Of each value what may be told; a value with a secret's name is not looked at."""
        told: dict[str, Plain] = {}
        for key, value in values.items():
            if len(told) >= MOST_ITEMS:
                told["…"] = f"{len(values) - MOST_ITEMS} more"
                break
            name = key if isinstance(key, str) else self._described(key)
            if says_secret(name) and not isinstance(value, bool | None):
                told[self.text(name)] = REDACTED
            else:
                told[self.text(name)] = self.plain(value, depth)
        return told

    def plain(self, value: object, depth: int = 0) -> Plain:
        """Never raises, whatever the value is."""
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, str):
            return self.text(str(value))
        if isinstance(value, int):
            return int(value) if value.bit_length() <= LONGEST_NUMBER else "<a long number>"
        if hasattr(type(value), "get_secret_value"):
            return REDACTED
        if isinstance(value, bytes | bytearray | memoryview):
            return self.text(bytes(value).decode("utf-8", "backslashreplace"))
        if isinstance(value, Mapping | Set | list | tuple):
            return self._nested(value, depth + 1)
        return self.text(self._described(value))

    def _nested(self, value: Mapping[Any, object] | Iterable[object], depth: int) -> Plain:
        if depth > DEEPEST:
            return "…"
        try:
            if isinstance(value, Mapping):
                return self.mapping(value, depth)
            items = list(value)
        except Exception:
            return f"<{type(value).__name__} that cannot be read>"
        told = [self.plain(item, depth) for item in items[:MOST_ITEMS]]
        return told if len(items) <= MOST_ITEMS else [*told, f"… {len(items) - MOST_ITEMS} more"]

    def _described(self, value: object) -> str:
        try:
            told = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
        except Exception:
            return f"<{type(value).__name__} that cannot be told>"
        return told


@lru_cache(maxsize=1024)
def says_secret(name: str) -> bool:
    """Whether a value of that name is one that is not told."""
    return _NAME.search(name) is not None


def _begun(match: re.Match[str]) -> str:
    """How it begins, which says whose it is, and no more."""
    return f"{next(filter(None, match.groups()))}{REDACTED}"
