"""The client, with a channel of our own: the library's gives a server that was away for long up to two
minutes before it looks again, and reads the emulator's address from the environment alone."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import google.auth
import grpc
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.cloud.firestore import AsyncClient
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
from google.cloud.firestore_v1.services.firestore.transports.grpc_asyncio import FirestoreGrpcAsyncIOTransport

from moorage.adapters.firestore.address import Address
from moorage.adapters.firestore.failures import told

_EMULATOR = "FIRESTORE_EMULATOR_HOST"
_HOST = "firestore.googleapis.com"
_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # so long one try to connect may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)


@dataclass(frozen=True, slots=True)
class Connection:
    client: AsyncClient
    api: FirestoreAsyncClient
    channel: grpc.aio.Channel

    async def close(self) -> None:
        await self.channel.close()


async def connect(address: Address) -> Connection:
    """Nothing is sent to Firestore yet. Raises StoreUnusable where there are no credentials."""
    emulator = address.emulator or os.environ.get(_EMULATOR)
    if emulator:
        credentials: Credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]  # untyped there
        channel = grpc.aio.insecure_channel(emulator, options=_OPTIONS)
    else:
        credentials = await _credentials(address)
        channel = FirestoreGrpcAsyncIOTransport.create_channel(
            _HOST, credentials=credentials, scopes=AsyncClient.SCOPE, options=_OPTIONS
        )
    api = FirestoreAsyncClient(
        transport=FirestoreGrpcAsyncIOTransport(host=emulator or _HOST, channel=channel)
    )
    client = AsyncClient(project=address.project, credentials=credentials, database=address.database)
    # The library has no public way to give it a channel; this is where it keeps the one that it makes.
    client._firestore_api_internal = api
    return Connection(client, api, channel)


async def _credentials(address: Address) -> Credentials:
    try:
        # It reads files, and asks the metadata server where it runs in Google's cloud.
        credentials, _ = await asyncio.to_thread(google.auth.default, scopes=AsyncClient.SCOPE)
    except GoogleAuthError as error:
        raise told(error, address) from error
    return credentials
