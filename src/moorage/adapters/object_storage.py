"""The operator's bucket of weights, for models of `cache_scope` shared. Its keys never leave this process.

Workers get URLs that open single files for a while (AWS Signature Version 4 in the query). The signer is own
code, since one signature is forty lines and botocore thirteen megabytes that read clouds' descriptions from
disk; botocore is the judge in the tests. The marker is read by such a URL too, through the httpx transport
without its client, whose log would show it.

The bucket is laid out as `moorage_worker.cache.layout` says: a marker, written last, lists a copy's files.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

import httpx

from moorage.ports.outside import CachedFile, Clock

MARKER = ".moorage-complete.json"
DEFAULT_REGION = "us-east-1"
VALID = timedelta(hours=1)
LONGEST_VALID = timedelta(days=7)  # S3 signs for no longer
MARKER_VALID = timedelta(minutes=1)
MARKER_LIMIT = 16 * 1024**2
TIMEOUT_SECONDS = 10.0
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CODE = re.compile(rb"<Code>(\w{1,64})</Code>")
_REGION = re.compile(rb"<Region>([\w-]{1,64})</Region>")


class BucketUnreadable(OSError):
    """The shared bucket did not give what it should; the message says what to do, and holds no key."""


@dataclass(frozen=True, slots=True)
class BucketKeys:
    """What opens the bucket. Only the id is ever part of a URL."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where objects are: `base` is the URL of the bucket's root, which objects' keys are added to."""

    name: str
    prefix: str
    endpoint_url: str | None
    region: str

    @classmethod
    def parse(cls, url: str, endpoint_url: str | None = None, region: str | None = None) -> Bucket:
        """From `s3://bucket/prefix`; no endpoint is AWS itself. Raises ValueError with the rule."""
        name, _, prefix = url.removeprefix("s3://").partition("/")
        if not url.startswith("s3://") or not _BUCKET.fullmatch(name):
            raise ValueError("the shared cache's URL must be s3://bucket/prefix, as in s3://weights/models")
        if endpoint_url is not None:
            parts = urlsplit(endpoint_url)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise ValueError("the shared cache's endpoint must be an http:// or https:// URL with a host")
        return cls(name, prefix.strip("/"), endpoint_url, region or DEFAULT_REGION)

    @property
    def base(self) -> str:
        if self.endpoint_url is not None:
            return f"{self.endpoint_url.rstrip('/')}/{self.name}"
        if "." in self.name:  # no certificate is for such a host
            return f"https://s3.{self.region}.amazonaws.com/{self.name}"
        return f"https://{self.name}.s3.{self.region}.amazonaws.com"

    def url(self, key: str) -> str:
        """Of the object below the prefix, not signed."""
        whole = f"{self.prefix}/{key}" if self.prefix else key
        return f"{self.base}/{quote(whole, safe='/-_.~')}"


def presigned(url: str, region: str, keys: BucketKeys, at: datetime, valid: timedelta) -> str:
    """`url`, which has no query, so that a GET of it is allowed from `at` on for as long as `valid`."""
    parts = urlsplit(url)
    port = "" if parts.port in (None, {"http": 80, "https": 443}[parts.scheme]) else f":{parts.port}"
    stamp = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{keys.access_key_id}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(int(valid.total_seconds())),
        "X-Amz-SignedHeaders": "host",
    }
    query_text = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
    canonical = "\n".join(
        ["GET", parts.path, query_text, f"host:{parts.hostname}{port}", "", "host", "UNSIGNED-PAYLOAD"]
    )
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signing = f"AWS4{keys.secret_access_key}".encode()
    for part in scope.split("/"):
        signing = hmac.digest(signing, part.encode(), hashlib.sha256)
    signature = hmac.new(signing, to_sign.encode(), hashlib.sha256).hexdigest()
    return f"{url}?{query_text}&X-Amz-Signature={signature}"


class SharedCache:
    """A `SharedModelCache`. Close it with `aclose`."""

    def __init__(self, bucket: Bucket, keys: BucketKeys, clock: Clock, *, valid: timedelta = VALID) -> None:
        """`valid` is how long a URL opens its file. A worker asks again when one has run out meanwhile."""
        if not timedelta(0) < valid <= LONGEST_VALID:
            raise ValueError("URLs of the shared cache can be valid for seven days at most")
        self._bucket = bucket
        self._keys = keys
        self._clock = clock
        self._valid = valid
        self._transport = httpx.AsyncHTTPTransport(retries=1)

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def manifest(self, repo_id: str, revision: str) -> Sequence[CachedFile] | None:
        """All files of the model at that commit; None when it is not there whole.

        Raises BucketUnreadable (an OSError) when the bucket cannot be asked, or its marker is broken.
        """
        folder = f"{repo_id.replace('/', '--')}/{revision}"
        text = await self._read(f"{folder}/{MARKER}")
        if text is None:
            return None
        now = self._clock.now()
        return tuple(
            CachedFile(path, size, self._presigned(f"{folder}/{path}", now, self._valid))
            for path, size in files_of_marker(text, repo_id, revision).items()
        )

    def _presigned(self, key: str, now: datetime, valid: timedelta) -> str:
        return presigned(self._bucket.url(key), self._bucket.region, self._keys, now, valid)

    async def _read(self, key: str) -> bytes | None:
        status, body = await self._get(key)
        region = _REGION.search(body) if status in (301, 307, 400) else None
        if region is not None and region[1].decode() != self._bucket.region:
            # S3 tells the region that it wants to be asked in.
            self._bucket = replace(self._bucket, region=region[1].decode())
            status, body = await self._get(key)
        if status == 200:
            return body
        code = found[1].decode() if (found := _CODE.search(body)) else f"status {status}"
        if status == 404 and code != "NoSuchBucket":
            return None
        raise BucketUnreadable(f"the shared cache s3://{self._bucket.name}: {_ADVICE.get(code, code)}")

    async def _get(self, key: str) -> tuple[int, bytes]:
        """Status and body of a signed GET."""
        url = self._presigned(key, self._clock.now(), MARKER_VALID)
        limits = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_SECONDS)
        request = httpx.Request(
            "GET", url, headers={"accept-encoding": "identity"}, extensions={"timeout": limits}
        )
        try:
            response = await self._transport.handle_async_request(request)
            try:
                return response.status_code, await _body(response)
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            # From None: the request, with the URL that opens the marker, hangs on httpx's own error.
            raise BucketUnreadable(
                f"the shared cache s3://{self._bucket.name} cannot be reached: {said}"
            ) from None


_ADVICE: Mapping[str, str] = {
    "InvalidAccessKeyId": "its access key id is refused; check AWS_ACCESS_KEY_ID and the endpoint URL",
    "SignatureDoesNotMatch": "its keys are refused; check AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "its keys may not read; allow them s3:GetObject, and s3:ListBucket for what is absent",
    "NoSuchBucket": "there is no such bucket; check S3_MODEL_URL and the endpoint URL",
    "RequestTimeTooSkewed": "it refuses this machine's clock; set the time",
}


async def _body(response: httpx.Response) -> bytes:
    kept = bytearray()
    async for chunk in response.aiter_raw():
        kept += chunk
        if len(kept) > MARKER_LIMIT:
            raise BucketUnreadable(f"the marker of a copy is larger than {MARKER_LIMIT} bytes")
    return bytes(kept)


def files_of_marker(text: bytes, repo_id: str, revision: str) -> dict[str, int]:
    """Sizes in bytes by path. Raises BucketUnreadable for what no writer of ours wrote."""
    try:
        told: object = json.loads(text)
    except ValueError:
        told = None
    files = told.get("files") if isinstance(told, dict) else None
    if not isinstance(told, dict) or not isinstance(files, list) or not files:
        raise BucketUnreadable(f"the marker of {repo_id} in the shared cache lists no files; fill it again")
    if (told.get("repo_id"), told.get("revision")) != (repo_id, revision):
        raise BucketUnreadable(f"the marker of {repo_id} in the shared cache is of another model or commit")
    sizes: dict[str, int] = {}
    for item in files:
        path, size = (item.get("path"), item.get("size")) if isinstance(item, dict) else (None, None)
        if not isinstance(path, str) or not isinstance(size, int) or not _is_inside(path) or size < 0:
            raise BucketUnreadable(f"the marker of {repo_id} in the shared cache is broken; fill it again")
        sizes[path] = size
    return sizes


def _is_inside(path: str) -> bool:
    """Whether a URL made of the path opens something of this copy and nothing else."""
    return path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(path.split("/"))
