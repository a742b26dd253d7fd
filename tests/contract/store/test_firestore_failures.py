"""What Firestore's refusals become, told by a server on loopback that answers every call with one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from moorage.adapters.firestore import database
from moorage.adapters.firestore.store import FirestoreStore
from moorage.errors import StoreError, StoreUnavailable, StoreUnusable


@asynccontextmanager
async def refusing(status: str, words: str) -> AsyncIterator[str]:
    """The URL of a Firestore that refuses everything."""

    async def refuse(request: bytes, context: grpc.aio.ServicerContext) -> None:
        await context.abort(grpc.StatusCode[status], words)

    class Refusals(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
        def service(self, _: object) -> object:
            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Refusals()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"firestore://acme-prod/(default)?emulator=127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("status", "words", "advice"),
    [
        ("PERMISSION_DENIED", "Missing or insufficient permissions.", "roles/datastore.user"),
        ("UNAUTHENTICATED", "invalid credentials", "gcloud auth application-default login"),
        ("NOT_FOUND", "The database (default) does not exist", "gcloud firestore databases create"),
        ("FAILED_PRECONDITION", "not available for Firestore in Datastore Mode database", "native mode"),
        ("FAILED_PRECONDITION", "The query requires an index.", "deploy/firestore.indexes.json"),
    ],
)
async def test_a_database_that_cannot_be_used_says_what_to_do(status: str, words: str, advice: str) -> None:
    async with refusing(status, words) as url:
        with pytest.raises(StoreUnusable) as caught:
            await FirestoreStore.open(url)
    assert advice in str(caught.value)
    assert "acme-prod" in str(caught.value)


@pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED"])
async def test_what_may_pass_is_asked_again_and_then_told(
    status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "DEADLINE", 0.3)
    async with refusing(status, "later") as url:
        with pytest.raises(StoreUnavailable):
            await FirestoreStore.open(url)


async def test_what_nobody_expects_is_an_error_of_the_store() -> None:
    async with refusing("UNIMPLEMENTED", "what?") as url:
        with pytest.raises(StoreError) as caught:
            await FirestoreStore.open(url)
    assert not isinstance(caught.value, StoreUnavailable | StoreUnusable)
