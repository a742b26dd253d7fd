from __future__ import annotations

import pytest

from moorage.gateway import headers


def test_credentials_hosts_and_hop_by_hop_headers_stay_here() -> None:
    sent = [
        (b"host", b"evil.example"),
        (b"authorization", b"Bearer secret"),
        (b"cookie", b"session=1"),
        (b"x-api-key", b"secret"),
        (b"proxy-authorization", b"secret"),
        (b"x-forwarded-host", b"evil.example"),
        (b"connection", b"close, X-Private"),
        (b"x-private", b"1"),
        (b"te", b"trailers"),
        (b"impersonate-user", b"system:admin"),
        (b"impersonate-extra-scopes", b"all"),
        (b"x-remote-user", b"system:admin"),
        (b"content-type", b"application/json"),
        (b"accept", b"text/event-stream"),
        (b"x-twice", b"a"),
        (b"x-twice", "ü".encode()),
        (b"x-latin", b"\xfc"),
    ]
    forwarded = headers.for_worker(sent, "id-1")
    assert list(forwarded.items()) == [
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("x-twice", "a"),
        ("x-twice", "ü"),
        ("x-latin", "ü"),
        ("x-request-id", "id-1"),
    ]


def test_an_answer_sets_no_cookies_and_names_its_deployment() -> None:
    answered = [
        (b"Content-Type", b"text/plain"),
        (b"Set-Cookie", b"session=stolen"),
        (b"Connection", b"x-hop"),
        (b"X-Hop", b"1"),
        (b"Transfer-Encoding", b"chunked"),
        (b"X-Request-Id", b"theirs"),
        (b"Date", b"today"),
        (b"Audit-Id", b"of the API server"),
        (b"X-Kubernetes-Pf-Flowschema-Uid", b"1"),
        (b"Service-Worker-Allowed", b"/"),
        (b"Location", b"/elsewhere"),
    ]
    assert headers.for_caller(answered, "id-1", "dep_1", str.upper) == [
        (b"content-type", b"text/plain"),
        (b"location", b"/ELSEWHERE"),
        (b"x-request-id", b"id-1"),
        (b"x-moorage-deployment", b"dep_1"),
    ]


def test_a_well_formed_request_id_is_kept() -> None:
    assert headers.request_id([(b"x-request-id", b"abc-123")]) == "abc-123"


@pytest.mark.parametrize("bad", [b"", b"a b", b"a\xff", b"x" * 129, b"a\n"])
def test_any_other_request_id_is_replaced(bad: bytes) -> None:
    made = headers.request_id([(b"x-request-id", bad)])
    assert made != headers.request_id([])
    assert headers.request_id([(b"x-request-id", made.encode())]) == made
