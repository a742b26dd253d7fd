"""`moorage store`: what it refuses, what it says, and what it never shows."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from moorage.adapters.sql.store import SqlStore
from moorage.cli import store_urls
from moorage.cli.app import app
from moorage.cli.failures import ExitCode
from moorage.ports.store import Append, Insert
from moorage.testing.store_rows import api_key, deployment, event

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    def run(*arguments: str, **environ: str) -> Result:
        foreign = {name: None for name in os.environ if name.startswith("MOORAGE_")}
        ended = CliRunner().invoke(app, ["store", *arguments], env={**foreign, **environ})
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
        return ended

    return run


@pytest.fixture
def filled(tmp_path: Path) -> str:
    """The URL of a store with a few rows."""
    url = f"sqlite:///{tmp_path / 'from' / 'moorage.db'}"

    async def fill() -> None:
        store = await SqlStore.open(url)
        await store.commit([Insert(deployment(1)), Insert(api_key(1)), Append(event(1)), Append(event(2))])
        await store.aclose()

    asyncio.run(fill())
    return url


@pytest.fixture
def empty(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'to' / 'moorage.db'}"


def test_copy_and_check(run: Run, filled: str, empty: str) -> None:
    copied = run("copy", filled, empty)
    assert copied.exit_code == ExitCode.OK, copied.stderr
    words = [line.split() for line in copied.stdout.splitlines()]
    assert ["deployment", "1", "1"] in [line[:3] for line in words]
    assert ["event", "2", "2"] in [line[:3] for line in words]
    assert "Equal by count and by hash: 4 rows." in copied.stdout
    progress = [line.split() for line in copied.stderr.splitlines()]
    assert ["copying", "event", "2"] in progress
    assert ["verifying", "event", "2"] in progress
    assert "No service may run" in copied.stderr

    again = json.loads(run("copy", filled, empty, "--json").stdout)
    assert (again["source"], again["target"], again["equal"]) == (filled, empty, True)
    assert {row["written"] for row in again["collections"]} == {0}
    checks = [json.loads(run("check", url, "--json").stdout)["collections"] for url in (filled, empty)]
    assert checks[0] == checks[1]
    assert {row["collection"]: row["rows"] for row in checks[0] if row["rows"]} == {
        "api_key": 1,
        "deployment": 1,
        "event": 2,
    }
    shown = run("check", filled)
    assert ["event", "2"] in [line.split()[:2] for line in shown.stdout.splitlines() if line]


def test_a_target_in_use_is_refused(run: Run, filled: str, empty: str) -> None:
    assert run("copy", filled, empty).exit_code == ExitCode.OK

    async def go_on() -> None:
        store = await SqlStore.open(empty)
        await store.commit([Append(event(9)), Insert(deployment(9))])
        await store.aclose()

    asyncio.run(go_on())
    refused = run("copy", filled, empty, "--json")
    assert refused.exit_code == ExitCode.FAILED
    problem = json.loads(refused.stdout)
    assert problem["code"] == "target_in_use"
    assert "1 of deployment that the source does not have" in problem["detail"]
    assert "Nothing was written" in problem["advice"]


def test_one_store_by_several_names_is_refused(run: Run, filled: str, tmp_path: Path) -> None:
    file = Path(filled.removeprefix("sqlite:///"))
    link = tmp_path / "link.db"
    link.symlink_to(file)
    roundabout = f"{file.parent}/../{file.parent.name}/{file.name}"
    for other in (str(file), roundabout, str(link), os.path.relpath(file)):
        refused = run("copy", filled, f"sqlite:///{other}")
        assert refused.exit_code == ExitCode.USAGE, other
        assert "are one store" in refused.stderr


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("postgresql://a@localhost/x", "postgresql://b:c@127.0.0.1:5432/x", True),
        ("postgresql://a@DB.example/x", "postgresql://a@db.example/x?sslmode=require", True),
        ("postgresql://a@localhost/x", "postgresql://a@localhost/y", False),
        ("postgresql://a@localhost/x", "postgresql://a@localhost:5433/x", False),
        ("postgresql:///x?host=one", "postgresql:///x?host=two", False),
        ("firestore://project", "firestore://project/(default)", True),
        ("firestore://project/(default)", "firestore://project/other", False),
        ("firestore://project/x?emulator=127.0.0.1:1", "firestore://project/x", False),
        ("sqlite:////nowhere/../nowhere/a.db", "sqlite:////nowhere/a.db", True),
        ("sqlite:////nowhere/a.db", "sqlite:////nowhere/b.db", False),
        ("sqlite:////nowhere/a.db", "postgresql://localhost/nowhere/a.db", False),
    ],
)
def test_whether_two_urls_are_one_store(one: str, other: str, expected: bool) -> None:
    assert store_urls.same(one, other) is store_urls.same(other, one) is expected


def test_a_source_that_is_not_there_is_not_made(run: Run, tmp_path: Path, empty: str) -> None:
    missing = tmp_path / "nothing" / "moorage.db"
    for arguments in (("check", f"sqlite:///{missing}"), ("copy", f"sqlite:///{missing}", empty)):
        ended = run(*arguments)
        assert ended.exit_code == ExitCode.NOT_FOUND
        assert str(missing) in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    ["nothing", "mysql://u:s3cret@h/x", "postgresql://u:s3cret@h:port/x", "sqlite://", "env:", "env:NOT_SET"],
)
def test_what_is_no_url_of_a_store(run: Run, url: str, filled: str) -> None:
    for arguments in (("check", url), ("copy", filled, url), ("copy", url, filled)):
        ended = run(*arguments)
        assert ended.exit_code == ExitCode.USAGE, ended.stderr
        assert "s3cret" not in ended.stdout + ended.stderr


def test_a_server_that_is_not_there(run: Run, filled: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # bound, so that nobody else gets it, and not listening
        url = f"postgresql://u:s3cret@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=2"
        for arguments in (
            ("check", "env:STORE"),
            ("copy", filled, "env:STORE"),
            ("copy", "env:STORE", filled),
        ):
            ended = run(*arguments, STORE=url)
            assert ended.exit_code == ExitCode.UNREACHABLE, ended.stderr
            assert "127.0.0.1" in ended.stderr
            assert "s3cret" not in ended.stdout + ended.stderr


def test_a_file_that_is_no_store(run: Run, tmp_path: Path, filled: str) -> None:
    file = tmp_path / "text.db"
    file.write_text("no database at all, and long enough to be looked at" * 100)
    _cannot_be_used(run, file, filled)
    assert "no database at all" in file.read_text()


def test_a_folder_in_the_place_of_the_target(run: Run, tmp_path: Path, filled: str) -> None:
    folder = tmp_path / "folder.db"
    folder.mkdir()
    ended = run("copy", filled, f"sqlite:///{folder}")
    assert ended.exit_code == ExitCode.UNREACHABLE
    assert f"{folder} cannot be used now" in ended.stderr


def test_a_store_of_a_newer_release(run: Run, tmp_path: Path, filled: str) -> None:
    file = tmp_path / "newer.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
        connection.commit()
    _cannot_be_used(run, file, filled)


def _cannot_be_used(run: Run, file: Path, filled: str) -> None:
    url = f"sqlite:///{file}"
    for arguments in (("check", url), ("copy", url, filled), ("copy", filled, url)):
        ended = run(*arguments)
        assert ended.exit_code == ExitCode.FAILED, ended.stderr
        assert "The store cannot be used" in ended.stderr
        assert file.name in ended.stderr


def test_passwords_are_not_shown() -> None:
    url = "postgresql://ada:s3cret@db.example:5433/moorage?password=s3cret"
    assert store_urls.shown(url) == "postgresql://ada:***@db.example:5433/moorage"
    assert store_urls.shown("firestore://project/(default)") == "firestore://project/(default)"


def test_an_at_sign_in_a_password_is_not_told_as_a_host(run: Run, filled: str) -> None:
    ended = run("copy", filled, "postgresql://u:pa@ssword1@127.0.0.1/x")
    assert ended.exit_code == ExitCode.USAGE
    assert "%40" in ended.output
    assert "ssword1" not in ended.output
