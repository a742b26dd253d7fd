"""The operator's cache: read only, file by file through URLs that Moorage signs. No key of it comes here."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx2
from standardwebhooks import Webhook

from moorage_worker.cache.disk import Filling
from moorage_worker.cache.errors import (
    CopyBroken,
    CredentialsRefused,
    EndpointUnreachable,
    PermissionMissing,
    StorageTrouble,
)
from moorage_worker.cache.layout import FileEntry, NotACopy, entries, entry_of
from moorage_worker.cache.parts import CONNECTIONS, PART_BYTES, PartsDownload
from moorage_worker.cache.settings import ManifestPlace
from moorage_worker.errors import cause_line
from moorage_worker.json_types import Json

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of one model, and a URL for each that opens it for a while."""

    files: tuple[FileEntry, ...]
    urls: dict[str, str] = field(repr=False)


class SharedCache:
    """Asks Moorage for the model of this worker's endpoint. All blocks; a context manager."""

    def __init__(self, place: ManifestPlace, *, part_bytes: int = PART_BYTES) -> None:
        self._place = place
        self._part_bytes = part_bytes
        limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        self._client = httpx2.Client(timeout=TIMEOUT_SECONDS, limits=limits, follow_redirects=False)

    def close(self) -> None:
        self._client.close()

    def manifest(self) -> Manifest | None:
        """What is cached for this endpoint; None when nothing is. Raises StorageTrouble."""
        try:
            answer = self._client.get(self._place.url, headers=_signed(self._place.secret))
        except httpx2.HTTPError as error:
            raise EndpointUnreachable(f"the manifest cannot be fetched: {cause_line(error)}") from error
        if answer.status_code == 404:
            return None
        if answer.status_code == 401:
            raise CredentialsRefused("Moorage refuses the signature of the request for the manifest")
        if answer.status_code == 403:
            raise PermissionMissing("Moorage refuses the manifest to this worker")
        if answer.status_code != 200:
            raise StorageTrouble(f"Moorage answers {answer.status_code} to the request for the manifest")
        try:
            return parse_manifest(answer.json())
        except ValueError as error:
            raise StorageTrouble(f"the manifest cannot be read: {error}") from error

    def download(self, manifest: Manifest, files: Iterable[FileEntry], filling: Filling) -> None:
        """Bring these files of the manifest into a copy on disk, each kept as it is whole."""
        links = _RenewedLinks(manifest, self.manifest)
        PartsDownload(self._client, links, filling.incoming, filling.keep, part_bytes=self._part_bytes).run(
            files
        )


def parse_manifest(told: Json) -> Manifest:
    """Raises NotACopy (a ValueError) when it is no manifest."""
    if not isinstance(told, dict):
        raise NotACopy("it is not a JSON object")
    files, urls = [], {}
    for item in entries(told):
        entry, url = entry_of(item), item.get("url")
        if not isinstance(url, str) or not url.startswith(("https://", "http://")):
            raise NotACopy(f"{entry.path} has no http URL")
        files.append(entry)
        urls[entry.path] = url
    return Manifest(tuple(files), urls)


class _RenewedLinks:
    """The URLs of a manifest, asked for again when one is refused: they run out in a long download."""

    def __init__(self, manifest: Manifest, ask: Callable[[], Manifest | None]) -> None:
        self._manifest = manifest
        self._ask = ask
        self._lock = threading.Lock()

    def of(self, path: str) -> str:
        return self._manifest.urls[path]

    def renew(self, path: str, stale: str) -> None:
        with self._lock:
            if self._manifest.urls[path] != stale:
                return  # another part was faster
            fresh = self._ask()
            if fresh is None or set(fresh.files) != set(self._manifest.files):
                raise CopyBroken("the shared cache has changed during the download")
            log.info("URLs of the shared cache were renewed")
            self._manifest = fresh


def _signed(secret: str) -> dict[str, str]:
    """Standard Webhooks headers over an empty body."""
    message_id, now = f"msg_{uuid.uuid4().hex}", datetime.now(UTC)
    signature = Webhook(secret).sign(message_id, now, "")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
