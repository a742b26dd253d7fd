"""`moorage clusters`: what it sends, and what people read of the documented answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any  # the API's documents are JSON

import pytest
from typer.testing import CliRunner, Result

from moorage.api.cluster_schemas import CLUSTER, CLUSTER_ID, GROUP_ID, NODE_GROUP
from moorage.cli.app import app
from moorage.cli.failures import ExitCode

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Answer, Service

UNREACHABLE = {
    **CLUSTER,
    "report": {**CLUSTER["report"], "reachable": False, "problem": "No route to it.", "tools": []},
}
Run = Callable[..., Result]


@pytest.fixture
def run(service: Service, tmp_path: Path) -> Run:
    def run(*arguments: str, stdin: str | None = None) -> Result:
        foreign = {name: None for name in os.environ if name.startswith("MOORAGE_")}
        environ = {
            **foreign,
            "MOORAGE_URL": service.url,
            "MOORAGE_KEY": "k",
            "MOORAGE_DATA_DIR": str(tmp_path),
        }
        ended = CliRunner().invoke(app, ["clusters", *arguments], env=environ, input=stdin)
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
        return ended

    return run


def sent(service: Service) -> list[tuple[str, str, Any]]:
    return [(asked.method, asked.path, asked.body) for asked in service.asked]


def test_a_kubeconfig_is_sent_as_it_stands(
    run: Run, service: Service, answer: type[Answer], tmp_path: Path
) -> None:
    service.in_turn(answer(0, cut=True), answer(201, CLUSTER))
    file = tmp_path / "config"
    file.write_text("kind: Config\n")
    ended = run("import", "production", "--kubeconfig", str(file), "--namespace", "models")
    assert ended.exit_code == 0, ended.stderr
    body = {"name": "production", "kubeconfig": "kind: Config\n", "namespace": "models"}
    assert sent(service) == [("POST", "/clusters/", body)] * 2, "an answer that got lost is asked for again"
    keys = {asked.headers["idempotency-key"] for asked in service.asked}
    assert len(keys) == 1
    for word in ("reachable", "v1.34.2", "keda 2.18.1", "gpu-pool", "NVIDIA-L4", "gp3 (default)", "rabbitmq"):
        assert word in ended.stdout


def test_a_token_comes_by_a_file_or_standard_input(
    run: Run, service: Service, answer: type[Answer], tmp_path: Path
) -> None:
    service.in_turn(answer(201, UNREACHABLE))
    authority = tmp_path / "ca.pem"
    authority.write_text("PEM\nPEM\n")
    ended = run(
        *("import", "staging", "--server", "https://k8s.example", "--token-file", "-"),
        *("--certificate-authority", str(authority)),
        stdin="secret-token\n",
    )
    assert ended.exit_code == 0, ended.stderr
    assert service.asked[0].body == {
        "name": "staging",
        "server": "https://k8s.example",
        "certificate_authority": "PEM\nPEM\n",
        "token": "secret-token",
    }
    assert "not reachable" in ended.stdout
    assert "No route to it." in ended.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("import", "x"),
        ("import", "x", "--kubeconfig", "a", "--server", "https://b"),
        ("import", "x", "--kubeconfig", "/no/such/file"),
        ("nodegroups", "add", "production", "x", "--label", "pool"),
        ("nodegroups", "add", "production", "x", "--label", "a=b", "--cpus", "2"),
    ],
)
def test_what_cannot_be_meant_is_not_sent(
    run: Run, service: Service, answer: type[Answer], arguments: tuple[str, ...]
) -> None:
    ended = run(*arguments)
    assert ended.exit_code == ExitCode.USAGE, ended.stderr
    assert [asked for asked in service.asked if asked.method != "GET"] == []


def test_lists_and_json(run: Run, service: Service, answer: type[Answer]) -> None:
    service.answers = lambda _: answer(200, {"items": [CLUSTER]})
    assert json.loads(run("ls", "--json").stdout) == [CLUSTER]
    assert "production" in run("ls").stdout
    assert json.loads(run("get", CLUSTER_ID, "--json").stdout) == CLUSTER
    assert json.loads(run("nodegroups", "ls", "production", "--json").stdout) == [NODE_GROUP]
    service.answers = lambda _: answer(200, {"items": []})
    assert "moorage clusters import" in run("ls").stdout
    missing = run("get", "nothing")
    assert missing.exit_code == ExitCode.NOT_FOUND
    assert "There is no cluster 'nothing'" in missing.stderr


def test_what_is_done_to_one_goes_by_its_id(run: Run, service: Service, answer: type[Answer]) -> None:
    def answers(asked: Any) -> Answer:
        if asked.method == "GET":
            return answer(200, {"items": [CLUSTER]})
        if asked.method == "DELETE":
            return answer(204, b"")
        return answer(201, NODE_GROUP) if "nodegroups" in asked.path else answer(200, CLUSTER)

    service.answers = answers
    assert run("check", "production").exit_code == 0
    shape = ("--cpus", "4", "--memory-gib", "16", "--gpu", "NVIDIA-L4", "--gpus", "1", "--max-nodes", "3")
    added = run(
        "nodegroups", "add", "production", "l4", "-l", "pool=l4", "-l", "z=", "--price", "0.8", *shape
    )
    assert added.exit_code == 0, added.stderr
    assert run("nodegroups", "rm", "production", "gpu-pool").exit_code == 0
    assert run("nodegroups", "rm", "production", "nothing").exit_code == ExitCode.NOT_FOUND
    assert run("rm", "production").exit_code == 0
    path = f"/clusters/{CLUSTER_ID}"
    assert [each for each in sent(service) if each[0] != "GET"] == [
        ("POST", f"{path}/check/", None),
        (
            "POST",
            f"{path}/nodegroups/",
            {
                "name": "l4",
                "selector": {"pool": "l4", "z": ""},
                "price_per_hour": 0.8,
                "max_nodes": 3,
                "shape": {
                    "cpus": 4.0,
                    "memory_gib": 16.0,
                    "gpu": "NVIDIA-L4",
                    "gpus": 1,
                    "gpu_memory_gib": None,
                },
            },
        ),
        ("DELETE", f"{path}/nodegroups/{GROUP_ID}/", None),
        ("DELETE", f"{path}/", None),
    ]
