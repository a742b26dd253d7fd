"""A kubeconfig is read for what it says, and refused for what it would have us do."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any  # YAML of any shape

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Rejected
from moorage_kubernetes.kubeconfig import MAX_BYTES, read_access
from moorage_kubernetes.testing import StandInCluster

NOW = datetime.now(UTC)
HUSH = "hush-very-secret"


@pytest.fixture(scope="module")
def cluster() -> StandInCluster:
    """Its certificates only: it does not run."""
    return StandInCluster()


@pytest.fixture(scope="module")
def config(cluster: StandInCluster) -> Callable[..., dict[str, Any]]:
    def make(*, client_certificate: bool = False) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load(cluster.kubeconfig(client_certificate=client_certificate))
        loaded["clusters"][0]["cluster"]["server"] = "https://203.0.113.5:6443"
        return loaded

    return make


def refused(given: dict[str, str], now: datetime = NOW) -> Rejected:
    with pytest.raises(Rejected) as raised:
        read_access(given, now)
    told = f"{raised.value} {raised.value.detail} {raised.value.advice} {raised.value.fields}"
    assert HUSH not in told
    assert raised.value.advice
    assert len(raised.value.fields) == 1
    return raised.value


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# -- what is kept -----------------------------------------------------------------------------------------


def test_a_token_and_an_authority_are_kept_and_nothing_else(
    cluster: StandInCluster, config: Callable[..., dict[str, Any]]
) -> None:
    values = read_access({"kubeconfig": yaml.safe_dump(config())}, NOW)
    assert values == {
        "server": "https://203.0.113.5:6443",
        "certificate_authority": cluster.ca,
        "token": cluster.token,
    }


def test_a_client_certificate_is_kept_with_its_key(
    cluster: StandInCluster, config: Callable[..., dict[str, Any]]
) -> None:
    values = read_access({"kubeconfig": yaml.safe_dump(config(client_certificate=True))}, NOW)
    pair = cluster.client_pair()
    assert (values["client_certificate"], values["client_key"]) == (pair.certificate, pair.key)
    assert "token" not in values


def test_another_context_can_be_chosen(config: Callable[..., dict[str, Any]]) -> None:
    both = config()
    both["contexts"].append(
        {"name": "other", "context": {"cluster": "stand-in", "user": "moorage", "namespace": "models"}}
    )
    values = read_access({"kubeconfig": yaml.safe_dump(both), "context": "other"}, NOW)
    assert values["namespace"] == "models"


def test_the_values_can_be_given_directly(cluster: StandInCluster) -> None:
    given = {"server": "https://k.example.com", "certificate_authority": cluster.ca, "token": "t"}
    assert read_access(given, NOW) == given


def test_a_server_with_a_public_certificate_needs_no_authority() -> None:
    values = read_access({"server": "https://k.example.com", "token": "t"}, NOW)
    assert values["certificate_authority"] == ""


def test_what_is_optional_is_kept(cluster: StandInCluster) -> None:
    more = {
        "namespace": "models",
        "prometheus_url": "http://prometheus.monitoring.svc:9090",
        "rabbitmq_url": "amqp://user:word@rabbitmq:5672",
        "redis_url": "redis://redis:6379",
        "gateway": "edge/public",
    }
    given = {"server": "https://k.example.com", "token": "t", **more}
    values = read_access(given, NOW)
    assert {name: values[name] for name in more} == more


# -- what is refused --------------------------------------------------------------------------------------

USERS = [
    ({"exec": {"command": "aws", "args": [HUSH]}}, "exec_plugin"),
    ({"auth-provider": {"name": "gcp"}}, "auth_provider"),
    ({"username": "admin", "password": HUSH}, "basic_auth"),
    ({"tokenFile": "/var/run/token"}, "file_path"),
    ({"client-certificate": "/home/me/a.crt", "client-key": "/home/me/a.key"}, "file_path"),
    ({"token": "t", "client-key": "../a.key"}, "file_path"),
    ({"token": "t", "as": "system:admin"}, "impersonation"),
    ({}, "required"),
    ({"token": f"{HUSH}\nX-Header: 1"}, "token"),
    ({"token": 12}, "text"),
    ({"client-certificate-data": coded(HUSH), "client-key-data": coded(HUSH)}, "pem"),
    ({"client-certificate-data": "§", "client-key-data": coded(HUSH)}, "base64"),
]


@pytest.mark.parametrize(("user", "rule"), USERS)
def test_a_user_that_would_have_us_do_something_is_refused(
    config: Callable[..., dict[str, Any]], user: dict[str, Any], rule: str
) -> None:
    bad = config()
    bad["users"][0]["user"] = user
    (error,) = refused({"kubeconfig": yaml.safe_dump(bad)}).fields
    assert (error.field, error.rule) == ("body.kubeconfig", rule)


CLUSTERS = [
    ({"insecure-skip-tls-verify": True}, "insecure"),
    ({"certificate-authority": "/etc/ca.pem"}, "file_path"),
    ({"proxy-url": "http://10.0.0.1:3128"}, "proxy"),
    ({"tls-server-name": "other.example.com"}, "tls_server_name"),
    ({"server": "http://203.0.113.5"}, "https"),
    ({"server": f"https://user:{HUSH}@203.0.113.5"}, "url"),
    ({"server": "https://"}, "url"),
    ({"server": "https://[::1"}, "url"),
    ({"server": "ftp://a"}, "url"),
    ({"server": ""}, "required"),
    ({"server": None}, "required"),
    ({"certificate-authority-data": coded(HUSH)}, "pem"),
    ({"certificate-authority-data": "!!"}, "base64"),
]


@pytest.mark.parametrize(("cluster_", "rule"), CLUSTERS)
def test_a_cluster_that_leads_elsewhere_is_refused(
    config: Callable[..., dict[str, Any]], cluster_: dict[str, Any], rule: str
) -> None:
    bad = config()
    bad["clusters"][0]["cluster"] |= cluster_
    (error,) = refused({"kubeconfig": yaml.safe_dump(bad)}).fields
    assert (error.field, error.rule) == ("body.kubeconfig", rule)


TEXTS = [
    ("", "kubeconfig"),
    ("just words", "kubeconfig"),
    ("[1, 2]", "kubeconfig"),
    (f"a: [{HUSH}", "yaml"),
    ("a: &x [1]\nb: *x", "no_aliases"),
    ("a: " + "[" * 50 + "]" * 50, "depth"),
    ("a: " + "x" * MAX_BYTES, "size"),
    (f"token: !!python/object/apply:os.system ['{HUSH}']", "yaml"),
    ("current-context: 5", "current_context"),
    ("current-context: gone\ncontexts: []", "known_context"),
    ("current-context: a\ncontexts: {a: b}", "known_context"),
    ("current-context: a\ncontexts: [{name: a, context: 5}]", "kubeconfig"),
    ("current-context: a\ncontexts: [{name: a, context: {cluster: b}}]", "known_cluster"),
]


@pytest.mark.parametrize(("text", "rule"), TEXTS)
def test_what_is_no_kubeconfig_is_refused(text: str, rule: str) -> None:
    (error,) = refused({"kubeconfig": text}).fields
    assert (error.field, error.rule) == ("body.kubeconfig", rule)


def test_a_bomb_of_aliases_is_refused_before_it_goes_off() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    (error,) = refused({"kubeconfig": "\n".join(lines)}).fields
    assert error.rule == "no_aliases"


def test_an_authority_that_has_expired_is_refused(cluster: StandInCluster) -> None:
    given = {"server": "https://k.example.com", "certificate_authority": cluster.ca, "token": HUSH}
    (error,) = refused(given, NOW + timedelta(days=365 * 2000)).fields
    assert (error.field, error.rule) == ("body.certificate_authority", "expired")


def test_a_client_certificate_that_has_expired_is_refused(
    cluster: StandInCluster, config: Callable[..., dict[str, Any]]
) -> None:
    pair = cluster.client_pair(expired=True)
    bad = config()
    bad["users"][0]["user"] = {
        "client-certificate-data": coded(pair.certificate),
        "client-key-data": coded(pair.key),
    }
    (error,) = refused({"kubeconfig": yaml.safe_dump(bad)}).fields
    assert (error.field, error.rule) == ("body.kubeconfig", "expired")


def test_a_key_of_another_certificate_is_refused(
    cluster: StandInCluster, config: Callable[..., dict[str, Any]]
) -> None:
    bad = config(client_certificate=True)
    bad["users"][0]["user"]["client-key-data"] = coded(cluster.client_pair(expired=True).key)
    (error,) = refused({"kubeconfig": yaml.safe_dump(bad)}).fields
    assert error.rule == "key_of_certificate"


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("namespace", "No Namespace", "namespace"),
        ("namespace", "x" * 64, "namespace"),
        ("gateway", "public", "gateway"),
        ("gateway", "a/b/c", "gateway"),
        ("prometheus_url", "file:///etc/passwd", "url"),
        ("rabbitmq_url", f"http://u:{HUSH}@r", "url"),
        ("redis_url", "redis://", "url"),
    ],
)
def test_an_optional_value_of_no_use_is_refused(name: str, value: str, rule: str) -> None:
    with pytest.raises(Rejected) as raised:
        read_access({"server": "https://k.example.com", "token": "t", name: value}, NOW)
    (error,) = raised.value.fields
    assert (error.field, error.rule) == (f"body.{name}", rule)
    assert HUSH not in str(raised.value)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(Rejected):
        read_access({"kubeconfig": text}, NOW)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "current-context",
                        "contexts",
                        "clusters",
                        "users",
                        "name",
                        "context",
                        "cluster",
                        "user",
                        "server",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_any_document_is_read_or_refused(document: object) -> None:
    with pytest.raises(Rejected):
        read_access({"kubeconfig": yaml.safe_dump(document)}, NOW)
