"""What a path asks for, and that nothing written below `/proxy` leaves the replica's base."""

from __future__ import annotations

import posixpath
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Malformed
from moorage.gateway.paths import Proxied, moved, proxied

CLUSTER = "https://10.0.0.1:6443/api/v1/namespaces/ns/services/http:web:8000/proxy"
PREFIX = "/v1/deployments/dep_1/proxy"


def asked(raw: str) -> Proxied | None:
    scope: dict[str, Any] = {"path": unquote(raw), "raw_path": raw.encode()}
    return proxied(scope)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("/v1/deployments/dep_1/proxy", Proxied("dep_1", "/")),
        ("/v1/deployments/dep_1/proxy/", Proxied("dep_1", "/")),
        ("/v1/deployments/digits/proxy/v1/chat", Proxied("digits", "/v1/chat")),
        ("/v1/deployments/digits/proxy/proxy/x", Proxied("digits", "/proxy/x")),
        ("/v1/deployments/a/proxy/x%2Fy%20z/..a/a..", Proxied("a", "/x%2Fy%20z/..a/a..")),
        ("/v1/deployments/a/proxy//x", Proxied("a", "//x")),
        ("/v1/deployments/a%20b/proxy/x", Proxied("a b", "/x")),
        ("/v1/deployments//proxy/x", None),
        ("/v1/deployments/a/proxys", None),
        ("/v1/deployments/a/b/proxy", None),
        ("/v1/deployments/a%2Fproxy/x", None),
        ("/v1/models/a/proxy/x", None),
        ("/proxy", None),
    ],
)
def test_what_a_path_asks_for(raw: str, found: Proxied | None) -> None:
    assert asked(raw) == found


def test_a_server_may_give_no_raw_path() -> None:
    assert proxied({"path": "/v1/deployments/a/proxy/x y/é"}) == Proxied("a", "/x%20y/%C3%A9")


@pytest.mark.parametrize(
    "below",
    [
        "..",
        ".",
        "../x",
        "x/..",
        "x/./y",
        "%2e%2e/x",
        "x/%2E./y",
        "x%2f..%2fy",
        "..%5cx",
        "..\\x",
        "%252e%252e/x",
    ],
)
def test_a_path_that_would_leave_the_base_is_refused(below: str) -> None:
    with pytest.raises(Malformed) as caught:
        asked(f"/v1/deployments/a/proxy/{below}")
    assert caught.value.code == "path_not_allowed"


@given(st.text(st.sampled_from([*"ab./\\%25eEfFcC"]), max_size=24))
def test_whatever_passes_stays_below_however_it_is_decoded(below: str) -> None:
    try:
        found = asked(f"/v1/deployments/a/proxy/{below}")
    except Malformed:
        return
    assert found is not None
    for text in (found.below, unquote(found.below), unquote(unquote(found.below))):
        landed = posixpath.normpath("/base/proxy/" + text.replace("\\", "/").lstrip("/"))
        assert landed == "/base/proxy" or landed.startswith("/base/proxy/")


@pytest.mark.parametrize(
    ("location", "base", "expected"),
    [
        ("/x?a=1#f", "http://127.0.0.1:9", f"{PREFIX}/x?a=1#f"),
        ("/", "http://127.0.0.1:9", f"{PREFIX}/"),
        ("http://127.0.0.1:9/x", "http://127.0.0.1:9", f"{PREFIX}/x"),
        ("//127.0.0.1:9/x", "http://127.0.0.1:9/", f"{PREFIX}/x"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9", f"{PREFIX}/"),
        ("next?page=2", "http://127.0.0.1:9", "next?page=2"),
        ("?page=2", "http://127.0.0.1:9", "?page=2"),
        ("", "http://127.0.0.1:9", ""),
        ("https://elsewhere.example/x", "http://127.0.0.1:9", "https://elsewhere.example/x"),
        ("http://[broken/x", "http://127.0.0.1:9", "http://[broken/x"),
        # an API server writes its own path before the replica's, a plain proxy does not
        (f"{CLUSTER[21:]}/x?a=1", CLUSTER, f"{PREFIX}/x?a=1"),
        (f"{CLUSTER}/x", CLUSTER, f"{PREFIX}/x"),
        (CLUSTER.upper()[:21] + CLUSTER[21:], CLUSTER, f"{PREFIX}/"),
        ("/x", CLUSTER, f"{PREFIX}/x"),
        ("/api/v1/namespaces/ns/services/http:web:8000/proxyish", CLUSTER, None),
    ],
)
def test_where_a_replica_sends_its_callers(location: str, base: str, expected: str | None) -> None:
    found = moved(location, base, PREFIX)
    assert found == (f"{PREFIX}{location}" if expected is None else expected)
