"""Sealing of secrets at rest: AES-256-GCM under a ring of keys.

The first key of the ring seals, all of them open. So a rotation is: put a new key in front, start again, and
drop the old one when nothing is sealed under it any more. The context of a value (which row, which field) is
authenticated with it; a sealed value that was copied to another place does not open there.

A sealed value is text: `v1.<key id>.<base64url of nonce and ciphertext>`.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
NONCE_BYTES = 12
_FORM = "v1"
_KEY_ID = re.compile(r"[a-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class _Key:
    id: str
    raw: bytes = field(repr=False)


class KeyRing:
    """A `SecretBox`. Never shows its keys, in no repr and no error."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        """`keys` are (id, 32 bytes), the sealing one first. Raises ValueError for a ring that cannot work."""
        if not keys:
            raise ValueError("a key ring needs at least one key")
        for key_id, raw in keys:
            if not _KEY_ID.fullmatch(key_id):
                raise ValueError("a key's id is 1 to 32 lower-case letters, digits, hyphens or underscores")
            if len(raw) != KEY_BYTES:
                raise ValueError(f"key {key_id} has {len(raw)} bytes; AES-256 needs {KEY_BYTES}")
        if len({key_id for key_id, _ in keys}) != len(keys):
            raise ValueError("two keys of the ring have the same id")
        self._keys = tuple(_Key(key_id, raw) for key_id, raw in keys)
        self._ciphers = {key.id: AESGCM(key.raw) for key in self._keys}

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `id:base64,id:base64` (commas or new lines; base64 standard or url-safe, of 32 bytes)."""
        keys = []
        for number, part in enumerate((part for part in re.split(r"[,\s]+", text) if part), start=1):
            key_id, colon, encoded = part.partition(":")
            if not colon:
                raise ValueError(f"secret key {number} has no id; write it as id:base64-of-32-bytes")
            try:
                raw = _decode(encoded)
            except ValueError:
                raise ValueError(f"secret key {number} is not base64") from None
            keys.append((key_id, raw))
        return cls(keys)

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """The ring in the file, which is made with one new key when it is missing.

        Mode 0600. Of several processes that start at once, all get the key of the one that was first. Blocks
        on the disk: for use before the loop runs.
        """
        try:
            return cls.parse(path.read_text())
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
        line = f"k{secrets.token_hex(4)}:{_encode(secrets.token_bytes(KEY_BYTES))}\n"
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.") as draft:
            # NamedTemporaryFile makes it 0600. The link appears whole or not at all, and only one wins.
            draft.write(line)
            draft.flush()
            os.fsync(draft.fileno())
            try:
                os.link(draft.name, path)
            except FileExistsError:
                pass
            else:
                _sync_directory(path.parent)
        return cls.parse(path.read_text())

    def seal(self, secret: bytes, context: str) -> str:
        key = self._keys[0]
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[key.id].encrypt(nonce, secret, _associated(key.id, context))
        return f"{_FORM}.{key.id}.{_encode(nonce + sealed)}"

    def open(self, sealed: str, context: str) -> bytes:
        form, key_id, encoded = _parts(sealed)
        if form != _FORM:
            raise ValueError("the sealed value has a form that this version does not know")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise ValueError(f"the sealed value needs key {key_id!r}, which is not in the ring")
        raw = _decode(encoded)
        try:
            return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _associated(key_id, context))
        except (InvalidTag, ValueError):
            raise ValueError("the sealed value was changed, or belongs to another place") from None

    def derive(self, purpose: str) -> tuple[bytes, ...]:
        """A 32-byte key for another use, one for each key of the ring in its order: sign with the first,
        accept all, so that a rotation does not sign everybody out."""
        return tuple(
            HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"moorage {purpose}".encode()).derive(
                key.raw
            )
            for key in self._keys
        )

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(key.id for key in self._keys)})"


def _associated(key_id: str, context: str) -> bytes:
    return f"{_FORM}.{key_id}.{context}".encode()


def _parts(sealed: str) -> tuple[str, str, str]:
    parts = sealed.split(".")
    if len(parts) != 3:
        raise ValueError("this is no sealed value")
    return parts[0], parts[1], parts[2]


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    text = text.rstrip("=").replace("+", "-").replace("/", "_")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the sealed value is not base64") from None


def _sync_directory(folder: Path) -> None:
    """The new name survives a power cut too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
