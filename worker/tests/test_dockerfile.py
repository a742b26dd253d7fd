"""The images by their recipe: each engine has one, nobody is root in it, and it carries no secret."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from moorage_worker.engines.catalog import ENGINES

_WORKER = Path(__file__).parents[1]
_SECRET = re.compile(r"token|secret|password|key", re.IGNORECASE)


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name, those of the stages it is built on first."""
    text = (_WORKER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            image, _, name = rest.partition(" AS ")
            current = found[name] = list(found.get(image, []))
        current.append((instruction, rest))
    return found


def extras() -> dict[str, list[str]]:
    project = tomllib.loads((_WORKER / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(project["optional-dependencies"])


def test_every_engine_has_an_image_and_the_smallest_is_the_default() -> None:
    assert set(stages()) - {"base"} == set(ENGINES)
    assert list(stages())[-1] == "onnx"


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_an_image_installs_its_engine_the_cache_and_the_job_face(engine: str) -> None:
    [installed] = [rest for _, rest in stages()[engine] if "pip install" in rest]
    assert "--no-cache-dir" in installed
    [named] = re.findall(r'"/src\[(.*)\]"', installed)
    assert named.split(",") == [ENGINES[engine].extra, "s3", "runpod", "queue"]
    assert set(named.split(",")) <= set(extras())


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_an_image_runs_the_worker_as_nobody_of_rank(engine: str) -> None:
    instructions = stages()[engine]
    assert [rest for name, rest in instructions if name == "USER"] == ["worker"]
    assert instructions[-1] == ("USER", "worker")  # nothing is installed after
    [entry] = [rest for name, rest in instructions if name == "ENTRYPOINT"]
    assert entry == '["moorage-worker", "--host", "0.0.0.0"]'


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_an_image_carries_no_secret_and_no_more_than_the_package(engine: str) -> None:
    instructions = stages()[engine]
    assert not [rest for name, rest in instructions if name in ("ARG", "ENV") and _SECRET.search(rest)]
    copied = {source for name, rest in instructions if name == "COPY" for source in rest.split()[:-1]}
    assert copied == {"pyproject.toml", "README.md", "moorage_worker"}
    assert all((_WORKER / source).exists() for source in copied)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_an_engine_asks_for_no_package_that_its_extra_does_not_install(engine: str) -> None:
    distributions = {"PIL": "pillow", "sentence_transformers": "sentence-transformers"}
    installed = {re.split(r"[><=]", requirement)[0] for requirement in extras()[ENGINES[engine].extra]}
    assert {distributions.get(name, name) for name in ENGINES[engine].packages} - {"numpy"} <= installed
