"""The owner's key on this machine: who can read it, who gets it, and how it survives trouble."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moorage.cli.failures import ApiProblem
from moorage.cli.local_access import FILE_NAME, LocalAccess, signed_in
from moorage.cli.session import DEFAULT_URL, connection

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Answer, Service

HERE = LocalAccess("owner", "p", "http://127.0.0.1:8080", "mrg_k")
REFUSED = {"title": "no", "detail": "no", "code": "no"}


def test_only_the_user_may_read_it(tmp_path: Path) -> None:
    LocalAccess.read_or_create(tmp_path)
    HERE.save(tmp_path)
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]
    assert LocalAccess.read(tmp_path) == HERE


def test_those_who_start_at_once_agree_on_one_password(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with ThreadPoolExecutor(5) as pool:
        made = list(pool.map(lambda _: LocalAccess.read_or_create(folder), range(20)))
    assert len(set(made)) == 1
    assert len(made[0].password) >= 40


def test_a_file_that_appears_meanwhile_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process writes between our look and our write."""
    looks = iter([None, HERE])
    HERE.save(tmp_path)
    monkeypatch.setattr(LocalAccess, "read", classmethod(lambda _, __: next(looks)))
    assert LocalAccess.read_or_create(tmp_path) == HERE
    assert json.loads((tmp_path / FILE_NAME).read_text())["password"] == "p"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"username": "owner"}', '{"x": 1}'])
def test_a_broken_file_is_no_access(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    assert LocalAccess.read(tmp_path) is None


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://127.0.0.1:8080", "mrg_k"),
        ("http://localhost:8080/", "mrg_k"),
        ("http://127.0.0.1:8081", None),
        ("https://127.0.0.1:8080", None),
        ("http://moorage.example:8080", None),
        ("http://127.0.0.1.example:8080", None),
        ("http://127.0.0.1:8080@evil.example", None),
    ],
)
def test_the_key_goes_to_that_service_and_to_nobody_else(url: str, key: str | None) -> None:
    assert HERE.key_for(url) == key


def test_a_service_that_is_elsewhere_never_gets_it() -> None:
    assert LocalAccess("o", "p", "http://moorage.example", "k").key_for("http://moorage.example") is None


def test_secrets_do_not_show() -> None:
    assert "mrg_k" not in repr(HERE)
    assert "'p'" not in repr(HERE)


def test_a_key_that_works_is_kept(service: Service, answer: type[Answer]) -> None:
    service.answers = lambda _: answer(200, {"items": []})
    access = LocalAccess("owner", "p", "http://127.0.0.1:1", "mrg_old")
    assert signed_in(access, service.url) == LocalAccess("owner", "p", service.url, "mrg_old")


def test_a_key_of_a_store_that_is_gone_is_replaced(service: Service, answer: type[Answer]) -> None:
    service.in_turn(answer(401, REFUSED), answer(200, {"token": "eyJ"}), answer(201, {"key": "mrg_new"}))
    access = signed_in(LocalAccess("owner", "p", None, "mrg_old"), service.url)
    assert access.key == "mrg_new"
    assert service.asked[1].body == {"username": "owner", "password": "p"}
    assert service.asked[2].headers["authorization"] == "Bearer eyJ"


def test_another_owner_s_store_is_told(service: Service, answer: type[Answer]) -> None:
    service.answers = lambda _: answer(401, REFUSED)
    with pytest.raises(ApiProblem):
        signed_in(LocalAccess("owner", "p"), service.url)


def test_what_is_given_goes_before_what_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_DATA_DIR", str(tmp_path))
    assert connection(None, None) == (DEFAULT_URL, None)
    HERE.save(tmp_path)
    assert connection(None, None) == (HERE.url, "mrg_k")
    assert connection(None, "mrg_mine") == (HERE.url, "mrg_mine")
    assert connection("http://127.0.0.1:9/", None) == ("http://127.0.0.1:9", None)
