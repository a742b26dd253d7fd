"""Which URLs name a Firestore, and what a wrong one is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from moorage.adapters.firestore.address import Address, parse
from moorage.open_store import open_store


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("firestore://acme-prod-1/(default)", Address("acme-prod-1", "(default)")),
        ("firestore://acme-prod-1/%28default%29/", Address("acme-prod-1", "(default)")),
        ("firestore://acme-prod-1/moorage", Address("acme-prod-1", "moorage")),
        ("firestore://acme.example:prod-1/moorage", Address("acme.example:prod-1", "moorage")),
        (
            "firestore://acme-prod/(default)?emulator=127.0.0.1:80",
            Address("acme-prod", "(default)", "127.0.0.1:80"),
        ),
        ("firestore://acme-prod/(default)?emulator=[::1]:80", Address("acme-prod", "(default)", "[::1]:80")),
    ],
)
def test_a_url_names_project_and_database(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("firestore:acme-prod/(default)", "no project"),
        ("firestore:///(default)", "no project"),
        ("firestore://acme/(default)", "no project"),
        ("firestore://Acme-Prod/(default)", "no project"),
        ("firestore://acme-prod-/(default)", "no project"),
        ("firestore://me@acme-prod/(default)", "no project"),
        ("firestore://acme-prod", "no database"),
        ("firestore://acme-prod/", "no database"),
        ("firestore://acme-prod/default", None),  # a name that a database may have
        ("firestore://acme-prod/a/b", "no database"),
        ("firestore://acme-prod/(Default)", "no database"),
        ("firestore://acme-prod/(default)?emulators=a:1", "option"),
        ("firestore://acme-prod/(default)?emulator=a:1&emulator=b:1", "option"),
        ("firestore://acme-prod/(default)?emulator=a", "host:port"),
        ("firestore://acme-prod/(default)?emulator=a:1/x", "host:port"),
        ("firestore://acme-prod/(default)#x", "not Firestore's"),
        ("sqlite:////x", "not Firestore's"),
    ],
)
def test_a_url_that_is_none_says_why(url: str, rule: str | None) -> None:
    if rule is None:
        assert parse(url).database == "default"
        return
    with pytest.raises(ValueError, match=rule):
        parse(url)


async def test_the_store_refuses_a_url_that_is_none() -> None:
    with pytest.raises(ValueError, match="firestore://project/database"):
        await open_store("firestore://acme-prod")


_WITHOUT_CLIENT = """
import asyncio, sys
sys.modules["google.cloud.firestore"] = None  # as if it were not installed
sys.modules["grpc"] = None
from moorage.errors import StoreUnusable
from moorage.open_store import open_store
try:
    asyncio.run(open_store("firestore://acme-prod/(default)"))
except StoreUnusable as error:
    print(error)
"""


def test_without_the_client_the_advice_is_to_install_it() -> None:
    run = subprocess.run([sys.executable, "-c", _WITHOUT_CLIENT], capture_output=True, text=True, check=True)
    assert "pip install 'moorage[firestore]'" in run.stdout
