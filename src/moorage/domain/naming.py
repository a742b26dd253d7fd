"""Names that can be computed again: what lets a restarted engine find what it had begun.

An external name tells the deployment, its revision and the attempt. It fits a DNS label, the narrowest rule
among the providers: at most 63 characters of lower-case letters, digits and hyphens.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

_EXTERNAL = re.compile(r"mrg-(?P<id>[a-z2-7]{26})-r(?P<revision>\d{1,6})-a(?P<attempt>\d{1,6})")


def new_id(prefix: str, now: datetime, entropy: bytes) -> str:
    """`{prefix}_` and 26 characters, ordered by time: 48 bits of milliseconds, then 10 bytes of `entropy`."""
    raw = int(now.timestamp() * 1000).to_bytes(6, "big") + entropy[:10]
    return f"{prefix}_{encode(raw)}"


def encode(raw: bytes) -> str:
    """Lower-case base32 whose text order is the order of the bytes."""
    text = base64.b32hexencode(raw).decode().rstrip("=").lower()
    # base32hex sorts as its bytes do; moved onto 2-7a-z it still does, and reads without 0/o and 1/l
    return text.translate(_TO_NAME)


def uuid_of(id_: str) -> UUID:
    """The same 128 bits as a UUID, for surfaces whose documents speak of UUIDs. Raises ValueError for an id
    that is none of `new_id`'s form."""
    text = id_.partition("_")[2].translate(_FROM_NAME).upper()
    return UUID(bytes=base64.b32hexdecode(text + "=" * (-len(text) % 8)))


def id_of(prefix: str, uuid: UUID) -> str:
    return f"{prefix}_{encode(uuid.bytes)}"


def id_given(prefix: str, text: str) -> str:
    """Of a UUID as text the id that it stands for; any other text as it is, since it may be an id."""
    try:
        return id_of(prefix, UUID(text))
    except ValueError:
        return text


def slug_of(id_: str) -> str:
    """Nine lower-case letters that follow from the id: for people, too short to identify anything."""
    number = int.from_bytes(hashlib.sha256(id_.encode()).digest())
    letters = []
    for _ in range(9):
        number, letter = divmod(number, 26)
        letters.append(chr(ord("a") + letter))
    return "".join(letters)


_HEX_ALPHABET = "0123456789abcdefghijklmnopqrstuv"
_NAME_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"
_TO_NAME = str.maketrans(_HEX_ALPHABET, _NAME_ALPHABET)
_FROM_NAME = str.maketrans(_NAME_ALPHABET, _HEX_ALPHABET)


@dataclass(frozen=True, slots=True)
class ExternalName:
    deployment_id: str
    revision: int
    attempt: int

    def __str__(self) -> str:
        return f"mrg-{self.deployment_id.removeprefix('dep_')}-r{self.revision}-a{self.attempt}"


def parse_external_name(name: str) -> ExternalName | None:
    """The parts of a name of ours, None for anybody else's."""
    match = _EXTERNAL.fullmatch(name)
    if match is None:
        return None
    return ExternalName(f"dep_{match['id']}", int(match["revision"]), int(match["attempt"]))
