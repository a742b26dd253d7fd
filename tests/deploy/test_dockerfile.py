"""The Dockerfile by what it says: linted, pinned, without rank, without a secret, and with nothing beside."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from .building import copied, in_context
from .programs import program
from .recipe import Stage, stages

ROOT = Path(__file__).parents[2]
BUILDER, RUNTIME = stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))
SECRET = re.compile(r"token|secret|password|key", re.IGNORECASE)
PROJECTS = (".", "registries", "worker", "providers/kubernetes", "providers/managed", "providers/runpod")


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "worker/Dockerfile"])
def test_hadolint_finds_nothing(dockerfile: str) -> None:
    hadolint = program("hadolint")
    command = [hadolint, "--no-color", "--failure-threshold=warning", dockerfile]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd / && pip install flask\n")
    hadolint = program("hadolint")
    linted = subprocess.run([hadolint, "--format=json", str(tmp_path / "Dockerfile")], capture_output=True)
    assert {"DL3006", "DL3013"} <= {each["code"] for each in json.loads(linted.stdout)}


def test_both_stages_have_the_same_python_of_a_named_version_that_the_project_supports() -> None:
    assert BUILDER.image == RUNTIME.image
    assert re.fullmatch(r"python:3\.11-slim-[a-z]+", BUILDER.image)


@pytest.mark.parametrize("stage", [BUILDER, RUNTIME], ids=["builder", "runtime"])
def test_no_stage_is_given_a_secret(stage: Stage) -> None:
    assert not [
        each for each in stage.instructions if each.name in ("ARG", "ENV") and SECRET.search(each.value)
    ]
    assert all(each.flag("mount") != "type=secret" for each in stage.all("RUN"))


def test_it_runs_as_nobody_of_rank_by_number_and_gets_signals_itself() -> None:
    user, group = RUNTIME.one("USER").value.split(":")
    assert int(user) >= 10_000
    assert user == group
    names = [each.name for each in RUNTIME.instructions]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))
    for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
        assert RUNTIME.one(name).exec_form, f"{name} would have a shell between"
    assert RUNTIME.one("ENTRYPOINT").words + RUNTIME.one("CMD").words == ["moorage", "serve"]


def test_it_writes_to_its_volume_and_to_tmp_alone() -> None:
    environ = RUNTIME.environment({"PATH": "/bin"})
    assert environ["MOORAGE_DATA_DIR"] == RUNTIME.one("VOLUME").value
    assert environ["HOME"] == "/tmp"
    assert environ["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environ["MOORAGE_HOST"] == "0.0.0.0"


def test_the_port_is_left_to_the_platform() -> None:
    """A port in the image would win over the PORT that Cloud Run sets."""
    assert not {"MOORAGE_PORT", "PORT"} & RUNTIME.environment({"PATH": ""}).keys()


def test_everything_that_is_installed_has_a_hash_and_nothing_is_asked_for_in_addition() -> None:
    installing = [
        part for each in BUILDER.all("RUN") for part in each.value.split("&&") if "pip install" in part
    ]
    assert len(installing) == 3
    for part in installing:
        assert ("--require-hashes" in part) != ("--no-deps" in part and "--offline" in part), part


def test_all_distributions_are_built_and_none_of_them_is_forgotten() -> None:
    [build] = [each.value for each in BUILDER.all("RUN") if "pip wheel" in each.value]
    for project in PROJECTS:
        assert re.search(rf" (\./)?{re.escape(project)}( |$)", build), project
    found = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("providers/*/pyproject.toml")}
    assert found <= set(PROJECTS)


def test_the_build_sees_what_it_copies_and_no_more() -> None:
    allowed = in_context(ROOT) - {"Dockerfile", ".dockerignore"}  # which every build is given
    assert copied(BUILDER, allowed) == allowed
    assert not [path for path in allowed if re.search(r"(^|/)(tests|\.env|\.git|var)(/|$)", path)]
    suffixes = {Path(path).suffix for path in allowed}
    assert suffixes <= {".py", ".toml", ".md", ".lock", ".typed", ".yaml", ".json", ".mako"}, suffixes
