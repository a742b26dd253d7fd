"""The guard's judgement: every family of address used to get inside, and the URL's own tricks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.adapters.outgoing_rules import (
    AllowList,
    is_public,
    judge,
    judge_before_lookup,
    parse_target,
)
from moorage.errors import OutgoingRefused

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "224.0.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "172.32.0.1",
    "100.128.0.1",
    "168.63.129.17",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
]


@pytest.mark.parametrize("text", PRIVATE)
def test_address_inside(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_address_outside(text: str) -> None:
    assert is_public(ip_address(text))


@given(st.ip_addresses(v=4))
def test_mapped_form_is_judged_as_the_address_it_maps(address: IPv4Address) -> None:
    assert is_public(IPv6Address(f"::ffff:{address}")) == is_public(address)


@given(st.ip_addresses(v=4))
def test_no_translation_prefix_leads_anywhere(address: IPv4Address) -> None:
    number = int(address)
    for base, shift in (("64:ff9b::", 0), ("2002::", 80), ("::", 0)):
        assert not is_public(IPv6Address(int(IPv6Address(base)) | number << shift))


@given(st.ip_addresses())
def test_what_is_public_is_global_and_one_host(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        plain = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
        assert plain.is_global
        assert not any((plain.is_multicast, plain.is_private, plain.is_loopback, plain.is_link_local))


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "scheme"),
        ("example.com/hook", "scheme"),
        ("ftp://example.com", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("http://example.com", "scheme"),
        ("https://", "host"),
        ("https:///path", "host"),
        ("https://user@example.com", "userinfo"),
        ("https://user:pass@example.com", "userinfo"),
        ("https://example.com\\@127.0.0.1/", "userinfo"),
        ("https://example.com:22", "port"),
        ("https://example.com:6379", "port"),
        ("https://example.com:99999", "port"),
        ("https://example.com:0", "port"),
        ("https://exa mple.com", "host"),
        ("https://example.com/\r\nx: y", "url"),
        ("https://[::1", "url"),
        ("https://example.com/" + "a" * 2048, "length"),
    ],
)
def test_url_refused_before_any_lookup(url: str, rule: str) -> None:
    with pytest.raises(OutgoingRefused) as refused:
        judge_before_lookup(parse_target(url), AllowList())
    assert refused.value.rule == rule


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://[::1]/", "https://[::ffff:10.0.0.1]:8443/x"])
def test_literal_address_inside_refused(url: str) -> None:
    target = parse_target(url)
    assert target.literal is not None
    with pytest.raises(OutgoingRefused) as refused:
        judge(target, [target.literal], AllowList())
    assert refused.value.rule == "public_address"


def test_one_address_inside_among_public_ones_refuses_all() -> None:
    target = parse_target("https://example.com/")
    judge(target, [ip_address("8.8.8.8")], AllowList())
    with pytest.raises(OutgoingRefused):
        judge(target, [ip_address("8.8.8.8"), ip_address("10.0.0.1")], AllowList())


def test_refusal_does_not_tell_the_address() -> None:
    with pytest.raises(OutgoingRefused) as refused:
        judge(parse_target("https://intranet.example/"), [ip_address("10.9.8.7")], AllowList())
    assert "10.9.8.7" not in str(refused.value)


@pytest.mark.parametrize(
    ("allow", "url", "address", "passes"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000/", "127.0.0.1", True),
        ("127.0.0.0/8", "http://127.0.0.9:9000/", "127.0.0.9", True),
        ("127.0.0.1", "http://127.0.0.2:9000/", "127.0.0.2", False),
        ("127.0.0.1:9000", "http://127.0.0.1:9000/", "127.0.0.1", True),
        ("127.0.0.1:9000", "http://127.0.0.1:9001/", "127.0.0.1", False),
        ("[::1]:9000", "http://[::1]:9000/", "::1", True),
        ("::1", "http://[::1]:9000/", "::1", True),
        ("localhost", "http://localhost:5000/", "127.0.0.1", True),
        ("localhost:5000", "http://LOCALHOST.:5000/", "127.0.0.1", True),
        ("localhost", "http://notlocalhost:5000/", "127.0.0.1", False),
        ("10.0.0.0/8", "http://inside.example:80/", "10.1.2.3", True),
        ("10.0.0.0/8", "http://outside.example:80/", "8.8.8.8", False),
        ("10.0.0.0/8, localhost", "https://outside.example/", "8.8.8.8", True),
    ],
)
def test_allow_list(allow: str, url: str, address: str, passes: bool) -> None:
    target, opened = parse_target(url), AllowList.parse(allow)
    if passes:
        judge_before_lookup(target, opened)
        judge(target, [ip_address(address)], opened)
    else:
        with pytest.raises(OutgoingRefused):
            judge(target, [ip_address(address)], opened)


def test_allowed_network_does_not_vouch_for_a_names_other_addresses() -> None:
    both = [ip_address("127.0.0.1"), ip_address("10.0.0.1")]
    with pytest.raises(OutgoingRefused):
        judge(parse_target("https://mixed.example/"), both, AllowList.parse("127.0.0.1"))


@pytest.mark.parametrize(
    "text", ["127.0.0.0/99", "bad host!", "localhost:0", "localhost:70000", "10.0.0.0/8/8"]
)
def test_allow_list_refuses_what_it_cannot_read(text: str) -> None:
    with pytest.raises(ValueError, match="outbound allow entry"):
        AllowList.parse(text)


@pytest.mark.parametrize(
    ("url", "host_header"),
    [
        ("https://Example.COM/a?b=c#d", "example.com"),
        ("https://example.com:8443/", "example.com:8443"),
        ("https://bücher.example/", "xn--bcher-kva.example"),
        ("https://[2606:4700::1111]/", "[2606:4700::1111]"),
    ],
)
def test_host_header_names_what_the_user_wrote(url: str, host_header: str) -> None:
    assert parse_target(url).host_header == host_header


def test_path_and_query_are_sent_as_written() -> None:
    target = parse_target("https://example.com/a%2Fb;c?d=e%20f&g#frag")
    assert str(target.url_at(ip_address("8.8.8.8"))) == "https://8.8.8.8/a%2Fb;c?d=e%20f&g"
