"""The command line as scripts and people use it, against a real service with real workers."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moorage.cli.failures import ExitCode

if TYPE_CHECKING:
    from tests.e2e.conftest import Installation

MODEL = "moorage/digits"
SAMPLES = Path(__file__).parents[2] / "examples" / "digits" / "samples"


def test_deploy_infer_delete(installation: Installation) -> None:
    deployed = installation.moorage("deploy", MODEL, "--name", "whole", "--json")
    assert deployed.returncode == ExitCode.OK, deployed.stderr
    deployment = json.loads(deployed.stdout)
    assert deployment["status"] == "ready"
    for phase in ("validating", "selecting_gpu", "creating_endpoint", "loading_model", "ready"):
        assert phase in deployed.stderr
    assert installation.replicas()

    for sample in sorted(SAMPLES.glob("*.png")):
        answer = installation.json("infer", "whole", f"@{sample}", "--parameters", '{"top_k": 1}')
        assert [output["label"] for output in answer["outputs"]] == [sample.stem]
    assert [d["name"] for d in installation.json("ls", "--status", "ready")] == ["whole"]
    assert installation.json("get", MODEL)["cost"]["accrued"] > 0
    assert any("ready in" in json.loads(line)["text"] for line in _lines(installation, "logs", "whole"))

    deleted = installation.moorage("delete", "whole")
    assert deleted.returncode == ExitCode.OK, deleted.stderr
    assert deleted.stdout.split() == [deployment["deployment_id"], "deleted"]
    assert installation.replicas() == []
    types = [json.loads(line)["type"] for line in _lines(installation, "events", "whole", "-f")]
    assert types[0] == "deployment.validating"
    assert types[-2:] == ["deployment.endpoint_removed", "deployment.deleted"]
    assert installation.at_once("ls").stdout.startswith("No deployments")
    assert "whole" in installation.at_once("ls", "--all").stdout


def _lines(installation: Installation, *arguments: str) -> list[str]:
    ended = installation.at_once(*arguments, "--json")
    assert ended.exit_code == 0, ended.stderr
    return ended.stdout.splitlines()


def test_stop_start_scale(installation: Installation) -> None:
    assert installation.moorage("deploy", MODEL, "--name", "changing").returncode == ExitCode.OK
    stopped = installation.moorage("stop", "changing", "--json")
    assert stopped.returncode == ExitCode.OK, stopped.stderr
    assert json.loads(stopped.stdout)["status"] == "stopped"
    assert "stopping" in stopped.stderr
    assert installation.replicas() == []
    assert installation.json("stop", "changing")["status"] == "stopped", (
        "what is so already is not waited for"
    )
    assert installation.json("scale", "changing", "2")["replicas"]["desired"] == 2
    started = installation.moorage("start", "changing", "--json")
    assert started.returncode == ExitCode.OK, started.stderr
    assert json.loads(started.stdout)["status"] == "ready", "one replica that answers is enough for that"
    deadline = time.monotonic() + 10
    while installation.json("get", "changing")["replicas"] != {"desired": 2, "ready": 2}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert installation.json("scale", "changing", "1", "--max", "1")["replicas"]["desired"] == 1
    assert installation.at_once("scale", "changing", "3", "--max", "2").exit_code == ExitCode.USAGE
    assert installation.at_once("scale", "changing", "0").exit_code == ExitCode.FAILED
    assert installation.at_once("stop", "nobody").exit_code == ExitCode.NOT_FOUND
    assert installation.moorage("delete", "changing").returncode == ExitCode.OK
    gone = installation.at_once("start", "changing")
    assert gone.exit_code == ExitCode.FAILED
    assert "deleted" in gone.stderr


def test_two_deploys_at_once(installation: Installation) -> None:
    both = [installation.begin("deploy", MODEL, "--name", name, "--json") for name in ("left", "right")]
    ready = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert [d["status"] for d in ready] == ["ready", "ready"]
    assert len({d["deployment_id"] for d in ready}) == 2
    ambiguous = installation.at_once("get", MODEL)
    assert ambiguous.exit_code == ExitCode.NOT_FOUND
    assert "Several serve that model" in ambiguous.stderr
    assert installation.moorage("delete", "left", "right").returncode == ExitCode.OK
    assert installation.replicas() == []


def test_ctrl_c_leaves_the_deployment_and_says_how_to_end_it(installation: Installation) -> None:
    with installation.begin("deploy", MODEL, "--name", "watched") as process:
        assert process.stderr is not None
        seen = process.stderr.readline()  # "Deploying …": it has been accepted
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Deploying watched" in seen
    assert "moorage delete watched" in rest
    assert "Traceback" not in rest
    assert installation.json("get", "watched")["status"] != "deleted"
    assert installation.moorage("delete", "watched").returncode == ExitCode.OK
    assert installation.replicas() == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["dploy"], ExitCode.USAGE, "Did you mean 'deploy'?"),
        (["deploy", "--max-prise", "1"], ExitCode.USAGE, "--max-price"),
        (["deploy"], ExitCode.USAGE, "MODEL or an --image"),
        (["get", "nobody"], ExitCode.NOT_FOUND, "'nobody'"),
        (["delete", "dep_nothing"], ExitCode.NOT_FOUND, "'dep_nothing'"),
        (["deploy", "acme/nothing"], ExitCode.FAILED, "body.hf_model_id (model_not_found)"),
        (["deploy", MODEL, "--max-price", "0.000001"], ExitCode.FAILED, "raise max_price_per_hour"),
        (["deploy", MODEL, "--webhook", "https://10.0.0.1/"], ExitCode.FAILED, "body.user_webhook_url"),
        (["ls", "--key", "mrg_wrong"], ExitCode.AUTH, "no such API key"),
        (["ls", "--url", "http://127.0.0.1:1"], ExitCode.UNREACHABLE, "http://127.0.0.1:1"),
        (["ls", "--url", "127.0.0.1:1"], ExitCode.USAGE, "http://"),
    ],
)
def test_what_goes_wrong_has_its_words_and_its_code(
    installation: Installation, arguments: list[str], code: ExitCode, words: str
) -> None:
    ended = installation.at_once(*arguments)
    assert (ended.exit_code, ended.stdout) == (code, "")
    assert words in ended.stderr


def test_with_json_a_problem_is_a_document(installation: Installation) -> None:
    ended = installation.at_once("get", "dep_nothing", "--json")
    assert ended.exit_code == ExitCode.NOT_FOUND
    assert json.loads(ended.stdout)["code"] == "deployment_not_found"


def test_keys_are_made_used_and_revoked(installation: Installation) -> None:
    made = installation.json("keys", "create", "ci", "--role", "viewer")
    assert installation.at_once("ls", MOORAGE_KEY=made["key"]).exit_code == ExitCode.OK
    refused = installation.at_once("deploy", MODEL, MOORAGE_KEY=made["key"])
    assert refused.exit_code == ExitCode.AUTH
    installation.json("keys", "revoke", made["id"])
    assert installation.at_once("ls", MOORAGE_KEY=made["key"]).exit_code == ExitCode.AUTH
    listed = {key["id"]: key for key in installation.json("keys", "ls")}
    assert listed[made["id"]]["revoked_at"] is not None
    assert made["key"] not in json.dumps(list(listed.values()))


def test_what_can_be_had_and_what_it_cost(installation: Installation) -> None:
    market = installation.json("gpus")
    assert "local-cpu" in [offer["id"] for offer in market["items"]]
    assert "managed" in installation.at_once("gpus").stdout
    deployment = json.loads(installation.moorage("deploy", MODEL, "--name", "costly", "--json").stdout)
    assert installation.json("cost", "costly")["deployment_id"] == deployment["deployment_id"]
    assert "measured here" in installation.at_once("cost", "costly").stdout
    assert installation.at_once("delete", "costly").exit_code == ExitCode.OK


def test_an_account_that_cannot_be_stored_says_why(installation: Installation) -> None:
    wrong = installation.at_once("credentials", "store", "managed")
    assert wrong.exit_code == ExitCode.USAGE
    assert "No key came in" in wrong.stderr
    assert "No accounts" in installation.at_once("credentials", "ls").stdout


def test_the_owner_signs_in_with_the_password_that_lies_there(installation: Installation) -> None:
    access = json.loads((installation.data_dir / "access.json").read_text())
    ended = installation.at_once("login", access["username"], MOORAGE_PASSWORD=access["password"])
    assert installation.at_once("keys", "ls", MOORAGE_KEY=ended.stdout.strip()).exit_code == ExitCode.OK
    assert installation.at_once("login", "owner", MOORAGE_PASSWORD="wrong").exit_code == ExitCode.AUTH


@pytest.mark.parametrize("key", ["two words", "mrg_x\ny", "mrg_é"])
def test_what_cannot_be_a_key_is_not_shown(installation: Installation, key: str) -> None:
    ended = installation.at_once("ls", MOORAGE_KEY=key)
    assert ended.exit_code == ExitCode.USAGE
    assert key not in ended.stderr


def test_no_secret_is_in_the_log_or_open_to_others(installation: Installation) -> None:
    path = installation.data_dir / "access.json"
    access = json.loads(path.read_text())
    log = (installation.data_dir.parent / "service.log").read_text()
    assert "service.started" in log
    assert access["key"] not in log
    assert access["password"] not in log
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_reader_that_goes_away_is_no_error(installation: Installation) -> None:
    with installation.begin("ls", "--all", "--json") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MOORAGE_PORT", "many", "MOORAGE_PORT"),
        ("MOORAGE_MANAGED_DRIVER", "moon", "MOORAGE_MANAGED_DRIVER"),
        ("MOORAGE_DATA_DIR", "/dev/null/var", "/dev/null/var"),
        ("MOORAGE_HOST", "192.0.2.1", "192.0.2.1"),
    ],
)
def test_a_service_that_cannot_start_says_which_setting(
    tmp_path: Path, environ: dict[str, str], name: str, value: str, words: str
) -> None:
    own = {**environ, "MOORAGE_DATA_DIR": str(tmp_path), "MOORAGE_PORT": "0", name: value}
    command = [sys.executable, "-m", "moorage.cli", "serve"]
    ended = subprocess.run(command, env=own, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode in (ExitCode.FAILED, ExitCode.USAGE)
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
