"""When a copy is whole, and what a marker may never make us do: the pure rules."""

from __future__ import annotations

import json
import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_worker.cache.errors import (
    BucketMissing,
    CredentialsRefused,
    EndpointUnreachable,
    ObjectMissing,
    PermissionMissing,
    StorageTrouble,
    trouble_of,
)
from moorage_worker.cache.layout import (
    MARKER,
    FileEntry,
    Marker,
    ModelKey,
    NotACopy,
    differences,
    has_weights,
    is_safe_path,
    parse_marker,
)
from moorage_worker.cache.parts import parts_of
from moorage_worker.cache.shared import parse_manifest
from moorage_worker.json_types import Json

MODEL = ModelKey("acme/tiny", "a" * 40)
FILES = (FileEntry("config.json", 10), FileEntry("unet/model.safetensors", 2000))

paths = st.lists(st.text("abc./\\*[ ü-", min_size=1, max_size=6), min_size=1, max_size=4).map("/".join)


def test_the_folder_of_a_model() -> None:
    assert MODEL.folder == f"acme--tiny/{'a' * 40}"
    assert ModelKey("gpt2", "b" * 40).folder == f"gpt2/{'b' * 40}"


@given(st.dictionaries(paths.filter(is_safe_path), st.integers(0, 2**50), min_size=1), st.lists(st.text()))
def test_a_marker_reads_back_as_it_was_written(sizes: dict[str, int], engines: list[str]) -> None:
    files = tuple(FileEntry(path, size) for path, size in sizes.items())
    marker = Marker(MODEL, files, tuple(sorted(engines)))
    assert parse_marker(marker.to_json(), MODEL) == marker


@given(paths)
def test_a_path_that_is_safe_stays_in_its_folder(path: str) -> None:
    if is_safe_path(path):
        inside = os.path.normpath(f"/cache/model/{path}")
        assert inside == f"/cache/model/{path}"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "./a",
        "a/",
        "a\\..\\b",
        "a\nb",
        "a\0",
        MARKER,
        "x" * 2000,
    ],
)
def test_paths_that_no_repository_has(path: str) -> None:
    assert not is_safe_path(path)
    document: dict[str, Json] = {
        "repo_id": "acme/tiny", "revision": "a" * 40, "files": [{"path": path, "size": 1, "url": "https://x/y"}]
    }  # fmt: skip
    with pytest.raises(NotACopy, match="no repository has"):
        parse_marker(json.dumps(document), MODEL)
    with pytest.raises(NotACopy, match="no repository has"):
        parse_manifest(document)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"repo_id": "acme/other"}, "another model"),
        ({"revision": "b" * 40}, "another model or commit"),
        ({"files": []}, "lists no files"),
        ({"files": "all"}, "lists no files"),
        ({"files": [1]}, "must be objects"),
        ({"files": [{"path": "a", "size": 1}, {"path": "a", "size": 1}]}, "each path once"),
        ({"files": [{"path": "a", "size": -1}]}, "no size"),
        ({"files": [{"path": "a", "size": True}]}, "no size"),
        ({"files": [{"path": "a", "size": "1"}]}, "no size"),
        ({"files": [{"size": 1}]}, "no repository has"),
        ({"files": [{"path": str(n), "size": 1} for n in range(20_001)]}, "more than 20000"),
    ],
)
def test_markers_that_are_not_believed(change: dict[str, object], reason: str) -> None:
    document = {**json.loads(Marker(MODEL, FILES).to_json()), **change}
    with pytest.raises(NotACopy, match=reason):
        parse_marker(json.dumps(document), MODEL)


@pytest.mark.parametrize("text", [b"", b"<html>", b"[]", b"\xff", b"null"])
def test_what_is_no_marker_at_all(text: bytes) -> None:
    with pytest.raises(NotACopy):
        parse_marker(text, MODEL)


def test_differences_are_told_by_file() -> None:
    assert differences(FILES, {"config.json": 10, "unet/model.safetensors": 2000, "other": 1}) == []
    assert differences(FILES, {"config.json": 9}) == [
        "config.json has 9 bytes, not 10",
        "unet/model.safetensors is missing",
    ]


def test_two_copies_of_a_commit_join() -> None:
    ours, theirs = Marker(MODEL, FILES[:1], ("onnx",)), Marker(MODEL, FILES[1:], ("transformers",))
    joined = ours.joined(theirs)
    assert joined == Marker(MODEL, FILES, ("onnx", "transformers"))
    assert joined.covers(ours)
    assert joined.covers(theirs)
    assert not ours.covers(joined)
    assert not Marker(MODEL, FILES, ()).covers(ours), "nobody said that it has what the engine needs"
    assert ours.joined(Marker(ModelKey("acme/tiny", "b" * 40), FILES)) == ours


def test_settings_alone_are_no_model() -> None:
    assert has_weights(["config.json", "model.onnx_data"])
    assert not has_weights(["config.json", "tokenizer.json", "1_Pooling/config.json"])


@given(st.integers(0, 10_000), st.integers(1, 700))
def test_parts_cover_a_file_once(size: int, part_bytes: int) -> None:
    parts = parts_of(FileEntry("a", size), part_bytes)
    assert [at for part in parts for at in range(part.at, part.end)] == list(range(size))
    assert all(part.end - part.at <= part_bytes for part in parts)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("InvalidAccessKeyId: The AWS Access Key Id you provided … status code: 403", CredentialsRefused),
        ("SignatureDoesNotMatch: … status code: 403", CredentialsRefused),
        ("ExpiredToken: The provided token has expired.", CredentialsRefused),
        ("NoSuchBucket: The specified bucket does not exist status code: 404", BucketMissing),
        ("NotFound: Not Found status code: 404, request id: 1", BucketMissing),
        ("AccessDenied: Access Denied status code: 403", PermissionMissing),
        ("Forbidden: Forbidden status code: 403", PermissionMissing),
        ("given object s3://b/k not found", ObjectMissing),
        ("NoSuchKey: The specified key does not exist.", ObjectMissing),
        (
            "RequestError: send request failed caused by: dial tcp: lookup x: no such host",
            EndpointUnreachable,
        ),
        ("SlowDown: Please reduce your request rate.", StorageTrouble),
        ("", StorageTrouble),
    ],
)
def test_what_s5cmd_says_has_its_own_error_with_advice(text: str, kind: type[StorageTrouble]) -> None:
    trouble = trouble_of([text], "s3://b/k")
    assert type(trouble) is kind
    assert trouble.advice in str(trouble)
    assert "s3://b/k" in str(trouble)


def test_of_many_failures_the_one_that_explains_most_is_told() -> None:
    trouble = trouble_of(["Forbidden: Forbidden", "InvalidAccessKeyId: …", "NoSuchKey: …"], "s3://b")
    assert type(trouble) is CredentialsRefused
    assert type(trouble_of([], "s3://b")) is StorageTrouble
