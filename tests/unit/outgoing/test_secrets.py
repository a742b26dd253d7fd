"""Sealing: what opens, what must not, and two processes that make the key file at once."""

from __future__ import annotations

import base64
import multiprocessing
import multiprocessing.queues
import multiprocessing.synchronize
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.adapters.secrets import KeyRing

OLD, NEW = ("old", bytes(32)), ("new", bytes(range(32)))


@given(st.binary(max_size=300), st.text(max_size=40))
def test_opens_what_it_sealed_in_its_place(secret: bytes, context: str) -> None:
    ring = KeyRing([NEW])
    assert ring.open(ring.seal(secret, context), context) == secret


def test_same_secret_seals_differently_each_time() -> None:
    ring = KeyRing([NEW])
    assert ring.seal(b"x", "c") != ring.seal(b"x", "c")


def test_moved_value_does_not_open() -> None:
    ring = KeyRing([NEW])
    with pytest.raises(ValueError, match="belongs to another place"):
        ring.open(ring.seal(b"x", "env of a"), "env of b")


def test_rotation_old_opens_new_seals() -> None:
    sealed = KeyRing([OLD]).seal(b"x", "c")
    ring = KeyRing([NEW, OLD])
    assert ring.open(sealed, "c") == b"x"
    assert ring.seal(b"x", "c").startswith("v1.new.")
    with pytest.raises(ValueError, match="needs key 'old'"):
        KeyRing([NEW]).open(sealed, "c")


@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    ring = KeyRing([NEW])
    head, encoded = ring.seal(b"secret", "c").rsplit(".", 1)
    raw = bytearray(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="was changed"):
        ring.open(f"{head}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}", "c")


@pytest.mark.parametrize(
    "sealed", ["", "v1", "v2.new.AAAA", "v1.new.", "v1.new.AAAA", "v1.new.!!!!", "a.b.c.d"]
)
def test_what_is_no_sealed_value_is_a_value_error(sealed: str) -> None:
    with pytest.raises(ValueError, match="sealed value"):
        KeyRing([NEW]).open(sealed, "c")


def test_parse_takes_both_alphabets_and_several_keys() -> None:
    raw = b"\xfb\xff" * 16
    standard, urlsafe = base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode().rstrip("=")
    assert standard != urlsafe
    ring = KeyRing.parse(f"a:{standard}, b:{urlsafe}")
    assert ring.derive("x")[0] == ring.derive("x")[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one"),
        ("abc", "has no id"),
        ("a:???", "not base64"),
        ("a:c2hvcnQ=", "AES-256 needs 32"),
        ("A B:x", "has no id"),
        (f"a:{'A' * 43},a:{'B' * 42}A", "same id"),
    ],
)
def test_parse_says_what_is_wrong_without_showing_a_key(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        KeyRing.parse(text)
    assert "c2hvcnQ" not in str(refused.value)
    assert "???" not in str(refused.value)


def test_derived_keys_differ_by_purpose_and_from_the_ring() -> None:
    ring = KeyRing([NEW, OLD])
    assert len({*ring.derive("jwt"), *ring.derive("other"), NEW[1], OLD[1]}) == 6


def test_nothing_is_printed() -> None:
    ring = KeyRing([NEW])
    assert repr(ring) == "KeyRing(new)"
    assert repr(NEW[1]) not in repr(vars(ring))


def test_file_is_made_private_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "made" / "secret.keys"
    sealed = KeyRing.load_or_create(path).seal(b"x", "c")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyRing.load_or_create(path).open(sealed, "c") == b"x"
    assert [entry.name for entry in path.parent.iterdir()] == ["secret.keys"]


def _seal_in(
    path: str, gate: multiprocessing.synchronize.Barrier, out: multiprocessing.queues.Queue[str]
) -> None:
    gate.wait()
    out.put(KeyRing.load_or_create(Path(path)).seal(str(os.getpid()).encode(), "c"))


def test_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    for round_ in range(5):
        path = tmp_path / f"{round_}.keys"
        gate, out = spawn.Barrier(4), spawn.Queue()
        workers = [spawn.Process(target=_seal_in, args=(str(path), gate, out)) for _ in range(4)]
        for worker in workers:
            worker.start()
        sealed = [out.get(timeout=30) for _ in workers]
        for worker in workers:
            worker.join()
        ring = KeyRing.load_or_create(path)
        assert len({ring.open(value, "c") for value in sealed}) == 4
