"""Each way in which the Hub says no is its own error, with its own field and advice."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from moorage.adapters.hub import HuggingFaceHub, Limits
from moorage.domain.model import HubModel
from moorage.errors import (
    HubTokenRefused,
    HubUnavailable,
    ModelDisabled,
    ModelError,
    ModelGated,
    ModelMissing,
    ModelPrivate,
    ModelUnreadable,
    RevisionMissing,
)
from moorage.testing.hub import Fault, HubStandIn

MakeRepo = Callable[[dict[str, Any]], Path]  # Any: any JSON object, text or bytes
OWNER = "hf_owner"
STRANGER = "hf_stranger"


@pytest.fixture
async def served(hub: HubStandIn, make_repo: MakeRepo) -> AsyncIterator[HuggingFaceHub]:
    folder = make_repo({"config.json": {}, "model.onnx": b"graph"})
    await hub.add_repo("acme/open", folder)
    await hub.add_repo("acme/private", folder, private=True, token=OWNER)
    await hub.add_repo("acme/gated", folder, gated=True, token=OWNER)
    await hub.add_repo("acme/disabled", folder, disabled=True)
    hub.accept_token(STRANGER)
    client = HuggingFaceHub(hub.url)
    yield client
    await client.aclose()


@pytest.mark.parametrize(
    ("repo", "token", "error", "field", "advice"),
    [
        ("acme/nothing", None, ModelMissing, "hf_model_id", "pass a token"),
        ("acme/nothing", STRANGER, ModelMissing, "hf_model_id", "spelling"),
        ("acme/private", None, ModelMissing, "hf_model_id", "if it is private, pass a token"),
        ("acme/private", STRANGER, ModelMissing, "hf_model_id", "account that may read it"),
        ("acme/gated", None, ModelGated, "hf_model_id", "pass a token of that account"),
        ("acme/gated", STRANGER, ModelGated, "hf_model_id", "account of hf_token"),
        ("acme/disabled", None, ModelDisabled, "hf_model_id", "another model"),
        ("acme/open", "hf_wrong", HubTokenRefused, "hf_token", "new token"),
        ("acme/private", "hf_wrong", HubTokenRefused, "hf_token", "new token"),
        ("no//id", None, ModelMissing, "hf_model_id", "owner/name"),
    ],
)
async def test_each_refusal_is_told_apart(
    served: HuggingFaceHub,
    repo: str,
    token: str | None,
    error: type[ModelError],
    field: str,
    advice: str,
) -> None:
    with pytest.raises(error) as caught:
        await served.profile(HubModel(repo), token)
    assert type(caught.value) is error
    assert caught.value.errors[0].field == field
    assert caught.value.errors[0].rule == error.code
    assert advice in (caught.value.advice or "")
    assert "hf_" not in str(caught.value).replace("hf_token", ""), "no token in the words"


@pytest.mark.parametrize("repo", ["acme/private", "acme/gated"])
async def test_the_right_token_opens(served: HuggingFaceHub, repo: str) -> None:
    assert (await served.profile(HubModel(repo), OWNER)).repo_id == repo


async def test_a_wrong_revision_names_the_field(served: HuggingFaceHub) -> None:
    with pytest.raises(RevisionMissing, match="no revision v9") as caught:
        await served.profile(HubModel("acme/open", "v9"), None)
    assert caught.value.errors[0].field == "revision"


async def test_a_token_on_this_machine_is_never_sent(
    served: HuggingFaceHub, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", OWNER)
    with pytest.raises(ModelMissing):
        await served.profile(HubModel("acme/private"), None)
    assert not any(request.authorized for request in hub.requests)


# -- the Hub itself in trouble ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.ERROR, Fault.GARBAGE])
async def test_a_hub_in_trouble_is_not_the_models_fault(
    served: HuggingFaceHub, hub: HubStandIn, fault: Fault
) -> None:
    hub.fault = fault
    with pytest.raises(HubUnavailable) as caught:
        await served.profile(HubModel("acme/open"), None)
    assert caught.value.retry_after
    hub.fault = Fault.NONE
    assert await served.profile(HubModel("acme/open"), None), "the trouble was not kept"


async def test_nobody_listening_there() -> None:
    client = HuggingFaceHub("http://127.0.0.1:9")
    with pytest.raises(HubUnavailable, match="does not answer"):
        await client.profile(HubModel("acme/open"), None)


async def test_a_rate_limit_tells_how_long_to_wait(served: HuggingFaceHub, hub: HubStandIn) -> None:
    hub.fault, hub.reset_seconds = Fault.RATE_LIMITED, 42
    with pytest.raises(HubUnavailable, match="slow down") as caught:
        await served.profile(HubModel("acme/open"), None)
    assert caught.value.retry_after == 42


async def test_a_slow_hub_is_given_up_in_time(served: HuggingFaceHub, hub: HubStandIn) -> None:
    hub.fault = Fault.SLOW
    impatient = HuggingFaceHub(hub.url, timeout=0.3)
    begun = time.monotonic()
    with pytest.raises(HubUnavailable):
        await impatient.profile(HubModel("acme/open"), None)
    assert time.monotonic() - begun < 2
    await impatient.aclose()


async def test_a_token_without_the_right_to_read_is_told() -> None:
    """A fine-grained token without the scope gets a plain 403 from the Hub."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = HuggingFaceHub(f"http://127.0.0.1:{port}")
        with pytest.raises(ModelPrivate, match="may not be read with this token"):
            await client.profile(HubModel("acme/private"), OWNER)


# -- repositories that cannot be read -----------------------------------------------------------------------


def _header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    "files",
    [
        {"model.safetensors": b"cut"},
        {"model.safetensors": _header(b"{}", 10**12)},
        {"model.safetensors": _header(b"not json")},
        {"model.safetensors": _header(b"[1, 2]")},
        {"model.safetensors": _header(b'{"a": 7}')},
        {"model.safetensors": _header(b"[" * 100_000)},
        {"model.safetensors": _header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": "ab"}}')},
        {"model.safetensors": _header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4000]}}')},
        {"model.safetensors": _header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}}')},
        {"config.json": "{", "model.onnx": b"graph"},
        {"config.json": "[]", "model.onnx": b"graph"},
        {"config.json": "[" * 100_000, "model.onnx": b"graph"},
        {"model.safetensors.index.json": {"weight_map": {"a": "model-00001-of-00002.safetensors"}}},
    ],
)
async def test_broken_repositories_are_the_models_fault(
    hub: HubStandIn, make_repo: MakeRepo, files: dict[str, Any]
) -> None:
    await hub.add_repo("acme/broken", make_repo(files))
    client = HuggingFaceHub(hub.url)
    with pytest.raises(ModelUnreadable) as caught:
        await client.profile(HubModel("acme/broken"), None)
    assert caught.value.advice


async def test_absurd_repositories_are_refused(hub: HubStandIn, make_repo: MakeRepo) -> None:
    await hub.add_repo("acme/many", make_repo({f"{number}.txt": "x" for number in range(12)}))
    await hub.add_repo("acme/big", make_repo({"config.json": {"x": "y" * 5000}, "model.onnx": b"graph"}))
    client = HuggingFaceHub(hub.url, limits=Limits(files=10, config_bytes=1000))
    with pytest.raises(ModelUnreadable, match="12 files, more than 10"):
        await client.profile(HubModel("acme/many"), None)
    with pytest.raises(ModelUnreadable, match="over 1000 bytes"):
        await client.profile(HubModel("acme/big"), None)
