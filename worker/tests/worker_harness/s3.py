"""An S3 server on loopback that refuses what S3 refuses: wrong keys, missing permission, missing buckets.

It is moto's server with its IAM checks on: every signature is computed again and every action looked up in
the caller's policy. moto checks signatures in headers only, so a presigned URL is judged here first, by
botocore's own signer and by its time, and goes on to moto signed in headers with the same key.

moto keeps one world per process, so there is one server per process; tests keep apart by buckets and users.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth  # type: ignore[import-untyped]  # botocore has no types
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]  # botocore has no types
from botocore.credentials import Credentials  # type: ignore[import-untyped]  # botocore has no types
from moto import settings as moto_settings
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

WAIT_SECONDS = 30.0
ACCOUNT, REGION = "123456789012", "us-east-1"
EVERYTHING = ("s3:*",)
READ_ONLY = ("s3:GetObject", "s3:HeadObject", "s3:ListBucket", "s3:HeadBucket", "s3:ListObjectsV2")
_SIGNING = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders")


@dataclass(frozen=True, slots=True)
class Keys:
    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """`presigned` when the URL carried the signature; `length` is of the body, `range` as asked for."""

    method: str
    path: str
    query: str
    length: int
    range: str | None
    presigned: bool


class Hold:
    """Requests that match wait until `release`."""

    def __init__(self, matches: Callable[[SeenRequest], bool]) -> None:
        self._matches = matches
        self._open = threading.Event()
        self._caught = 0
        self._came = threading.Condition()

    def pass_through(self, request: SeenRequest) -> None:
        if self._matches(request) and not self._open.is_set():
            with self._came:
                self._caught += 1
                self._came.notify_all()
            self._open.wait()

    def caught(self, count: int = 1) -> bool:
        """Waits until so many are held; False when that takes too long."""
        with self._came:
            return self._came.wait_for(lambda: self._caught >= count, WAIT_SECONDS)

    def release(self) -> None:
        self._open.set()


class S3Server:
    """`with S3Server().serving() as s3:`; `requests` lists all that came in."""

    def __init__(self) -> None:
        # moto's world is made of untyped models.
        self._s3: Any = s3_backends[ACCOUNT]["aws"]
        self._iam: Any = iam_backends[ACCOUNT]["aws"]
        self._moto: WSGIApplication = DomainDispatcherApplication(create_backend_app)
        self._holds: list[Hold] = []
        self.cut_after: dict[str, int] = {}  # the next answer for a path that ends so ends after these bytes
        self.requests: list[SeenRequest] = []
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator[S3Server]:
        server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_QuietHandler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        allowed = moto_settings.INITIAL_NO_AUTH_ACTION_COUNT
        moto_settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            for hold in self._holds:
                hold.release()
            server.shutdown()
            server.server_close()
            thread.join()
            moto_settings.INITIAL_NO_AUTH_ACTION_COUNT = allowed

    # -- the world ----------------------------------------------------------------------------------

    def add_bucket(self, name: str | None = None) -> str:
        name = name or f"bucket-{secrets.token_hex(6)}"
        self._s3.create_bucket(name, REGION)
        return name

    def add_user(self, actions: Iterable[str] = EVERYTHING) -> Keys:
        name = f"user-{secrets.token_hex(6)}"
        self._iam.create_user(region_name=REGION, user_name=name)
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [allowed]}
        self._iam.put_user_policy(name, "policy", json.dumps(policy))
        key = self._iam.create_access_key(name)
        return Keys(key.access_key_id, key.secret_access_key)

    def objects(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """Sizes in bytes by key."""
        keys = self._s3.get_bucket(bucket).keys
        return {name: keys[name].size for name in sorted(keys) if name.startswith(prefix)}

    def read(self, bucket: str, key: str) -> bytes:
        return bytes(self._s3.get_object(bucket, key).value)

    def content_type(self, bucket: str, key: str) -> str:
        return str(self._s3.get_object(bucket, key).metadata["Content-Type"])

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._s3.put_object(bucket, key, data)

    def delete(self, bucket: str, key: str) -> None:
        self._s3.delete_object(bucket, key)

    def hold(self, matches: Callable[[SeenRequest], bool]) -> Hold:
        hold = Hold(matches)
        self._holds.append(hold)
        return hold

    def count(self, method: str, ending: str = "") -> int:
        return sum(seen.method == method and seen.path.endswith(ending) for seen in list(self.requests))

    # -- answers ------------------------------------------------------------------------------------

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        seen = _seen(environ)
        self.requests.append(seen)
        for hold in list(self._holds):
            hold.pass_through(seen)
        if seen.presigned:
            refusal = self._judge_url(environ)
            if refusal is not None:
                start("403 Forbidden", [("Content-Type", "application/xml")])
                return [f"<Error><Code>{refusal}</Code></Error>".encode()]
        answer = self._moto(environ, start)
        cut = next((end for end in self.cut_after if seen.method == "GET" and seen.path.endswith(end)), None)
        return answer if cut is None else [b"".join(answer)[: self.cut_after.pop(cut)]]

    def _judge_url(self, environ: WSGIEnvironment) -> str | None:
        """The code of S3's refusal; None for a good one, which is then signed in headers for moto."""
        query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
        signature = query.pop("X-Amz-Signature", "")
        key_id, _, scope = query.get("X-Amz-Credential", "").partition("/")
        secret = next((k.secret_access_key for k in self._all_keys() if k.access_key_id == key_id), None)
        if secret is None:
            return "InvalidAccessKeyId"
        region = scope.split("/")[1]
        made = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if datetime.now(UTC) > made + timedelta(seconds=int(query["X-Amz-Expires"])):
            return "AccessDenied"
        keys, host = Credentials(key_id, secret), environ["HTTP_HOST"]
        path = quote(unquote(environ["RAW_URI"].partition("?")[0]), safe="/-_.~")
        request = AWSRequest(environ["REQUEST_METHOD"], f"http://{host}{path}", {"host": host}, params=query)
        request.context["timestamp"] = query["X-Amz-Date"]
        judge = S3SigV4QueryAuth(keys, "s3", region)
        right = judge.signature(judge.string_to_sign(request, judge.canonical_request(request)), request)
        if not secrets.compare_digest(right, signature):
            return "SignatureDoesNotMatch"
        _sign_in_headers(environ, keys, region, {k: v for k, v in query.items() if k not in _SIGNING})
        return None

    def _all_keys(self) -> list[Any]:
        return [key for user in self._iam.list_users("/", None, None) for key in user.access_keys]


def _sign_in_headers(environ: WSGIEnvironment, keys: Credentials, region: str, query: dict[str, str]) -> None:
    path, host, query_text = environ["RAW_URI"].partition("?")[0], environ["HTTP_HOST"], urlencode(query)
    url = f"http://{host}{path}" + (f"?{query_text}" if query_text else "")
    request = AWSRequest(environ["REQUEST_METHOD"], url, {"Host": host})
    S3SigV4Auth(keys, "s3", region).add_auth(request)
    environ["QUERY_STRING"] = query_text
    environ["RAW_URI"] = environ["REQUEST_URI"] = path + (f"?{query_text}" if query_text else "")
    for name, value in request.headers.items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value


def _seen(environ: WSGIEnvironment) -> SeenRequest:
    query = environ.get("QUERY_STRING", "")
    return SeenRequest(
        environ["REQUEST_METHOD"],
        unquote(environ["RAW_URI"].partition("?")[0]),
        query,
        int(environ.get("CONTENT_LENGTH") or 0),
        environ.get("HTTP_RANGE"),
        "X-Amz-Signature=" in query,
    )


class _QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: object) -> None:
        """Quiet: requests are in `S3Server.requests`."""
