"""`moorage models`: what it sends, and what people read of the documented answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any  # the API's documents are JSON

import pytest
from typer.testing import CliRunner, Result

from moorage.api.model_schemas import CUSTOM, IMAGE, MODEL_ID
from moorage.cli.app import app
from moorage.cli.failures import ExitCode

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Answer, Service

FAILED = {**IMAGE, "status": "FAILED", "digest": None, "detail": "ghcr.io has no image acme/serve:1.4."}
Run = Callable[..., Result]


@pytest.fixture
def run(service: Service, tmp_path: Path) -> Run:
    def run(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
        foreign = {name: None for name in os.environ if name.startswith(("MOORAGE_", "HF_"))}
        ours = {"MOORAGE_URL": service.url, "MOORAGE_KEY": "k", "MOORAGE_DATA_DIR": str(tmp_path)}
        ended = CliRunner().invoke(
            app, ["models", *arguments], env={**foreign, **ours, **environ}, input=stdin
        )
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
        return ended

    return run


def sent(service: Service) -> list[tuple[str, str, Any]]:
    return [(asked.method, asked.path, asked.body) for asked in service.asked]


def test_a_container_is_imported_with_the_password_of_standard_input(
    run: Run, service: Service, answer: type[Answer]
) -> None:
    service.in_turn(answer(0, cut=True), answer(201, IMAGE))
    arguments = ("import", "acme-serve", "1.4", "--image", "ghcr.io/acme/serve:1.4", "--username", "bot")
    ended = run(*arguments, stdin="open sesame\n", HF_TOKEN="hf_of_nobody_here")
    assert ended.exit_code == 0, ended.stderr
    body = {
        "name": "acme-serve",
        "version": "1.4",
        "container_image": "ghcr.io/acme/serve:1.4",
        "registry_username": "bot",
        "registry_password": "open sesame",
    }
    assert sent(service) == [("POST", "/models", body)] * 2, "an answer that got lost is asked for again"
    assert len({asked.headers["idempotency-key"] for asked in service.asked}) == 1
    assert IMAGE["digest"] in ended.stdout.replace("\n", "").replace(" ", "")
    assert "sesame" not in ended.output


def test_a_hub_model_goes_with_its_token(run: Run, service: Service, answer: type[Answer]) -> None:
    service.in_turn(answer(201, CUSTOM))
    ended = run("import", "our-digits", "2", "--hf-model", "acme/digits", "--json", HF_TOKEN="hf_x")
    assert json.loads(ended.stdout) == CUSTOM
    body = {"name": "our-digits", "version": "2", "hf_model_id": "acme/digits", "hf_token": "hf_x"}
    assert sent(service) == [("POST", "/models", body)]


def test_an_import_that_fails_is_shown_and_fails(run: Run, service: Service, answer: type[Answer]) -> None:
    service.in_turn(answer(201, FAILED))
    ended = run("import", "acme-serve", "1.4", "--image", "ghcr.io/acme/serve:1.4")
    assert ended.exit_code == ExitCode.FAILED
    assert "FAILED" in ended.stdout
    assert "has no image" in ended.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("import", "a", "1"),
        ("import", "a", "1", "--image", "x", "--hf-model", "a/b"),
        ("import", "a", "1", "--image", "x", "--username", "u"),
    ],
)
def test_half_a_wish_is_wrong_usage(run: Run, service: Service, arguments: tuple[str, ...]) -> None:
    assert run(*arguments, stdin="").exit_code == ExitCode.USAGE
    assert service.asked == []


def test_all_pages_are_listed(run: Run, service: Service, answer: type[Answer]) -> None:
    link = {"link": '</models?limit=200&cursor=abc>; rel="next"'}
    service.in_turn(answer(200, [IMAGE], headers=link), answer(200, [CUSTOM]))
    ended = run("ls")
    assert [asked.path for asked in service.asked] == ["/models?limit=200", "/models?limit=200&cursor=abc"]
    assert "acme-serve" in ended.stdout
    assert "our-digits" in ended.stdout
    service.in_turn(answer(200, []))
    assert run("ls").stdout.startswith("No models.")


@pytest.mark.parametrize("reference", ["acme-serve:1.4", "acme-serve", MODEL_ID])
def test_a_model_is_found_by_what_people_call_it(
    run: Run, service: Service, answer: type[Answer], reference: str
) -> None:
    other = {**CUSTOM, "uuid": "019aa5b5-7f60-7d0c-a4c1-0a1b2c3d4e61"}
    service.in_turn(answer(200, [IMAGE, other]), answer(200, {"message": "gone"}))
    ended = run("rm", reference)
    assert ended.exit_code == 0, ended.stderr
    assert sent(service)[1] == ("DELETE", f"/models/{MODEL_ID}", None)


def test_one_of_several_versions_must_be_named(run: Run, service: Service, answer: type[Answer]) -> None:
    newer = {**IMAGE, "uuid": "019aa5b5-7f60-7d0c-a4c1-0a1b2c3d4e62", "version": "1.5"}
    service.in_turn(answer(200, [newer, IMAGE]))
    ended = run("get", "acme-serve")
    assert ended.exit_code == ExitCode.NOT_FOUND
    assert "acme-serve:1.5, acme-serve:1.4" in ended.stderr.replace("\n", " ")


@pytest.mark.parametrize("body", [b"<html>", {"items": []}])
def test_what_is_no_list_of_models_is_no_answer_of_moorage(
    run: Run, service: Service, answer: type[Answer], body: Any
) -> None:
    service.in_turn(answer(200, body))
    assert run("ls").exit_code == ExitCode.FAILED
