"""What holds for every script: its help, its README, and what it needs to run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

from .conftest import PAINTER, SCRIPTS, Harbour, Script, own_environ

README = (SCRIPTS / "README.md").read_text("utf-8")
MODEL = "stabilityai/sdxl-turbo"
WITH_OPTIONS = [
    "smoke.py",
    "deploy_and_infer.py",
    "webhook_receiver.py",
    "cleanup_endpoints.py",
    "create_runpod_template.py",
]


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_help_says_what_it_does_and_its_exit_codes(name: str) -> None:
    ended = Script(name, {"MOORAGE_KEY": "mrg_of_the_test", "RUNPOD_API_KEY": "rpa_of_the_test"})("--help")
    assert (ended.code, ended.err) == (0, "")
    first = ast.get_docstring(ast.parse((SCRIPTS / name).read_text("utf-8")))
    assert first is not None
    assert first.splitlines()[0] in ended.out
    assert "exit codes: 0 " in ended.out
    assert "130 interrupted" in ended.out


def test_the_readme_names_every_script() -> None:
    scripts = {path.name for path in SCRIPTS.glob("*.py")} - {"http_api.py"}
    assert set(re.findall(r"^\| `(\w+\.py)`", README, flags=re.MULTILINE)) == scripts


@pytest.mark.parametrize("name", [*WITH_OPTIONS, "http_api.py"])
def test_they_import_nothing_of_moorage(name: str) -> None:
    """They are for machines where Moorage is not installed."""
    allowed = set(sys.stdlib_module_names) | {"httpx", "standardwebhooks", "http_api", "deploy_and_infer"}
    tree = ast.parse((SCRIPTS / name).read_text("utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {module.partition(".")[0] for module in found} - allowed
    assert foreign <= {"scripts"}, "which only the type checker reads"


def test_the_readme_s_commands_run(harbour: Harbour, tmp_path: Path) -> None:
    """Only the model is another one: the Hub's stand-in has a tiny pipeline."""
    blocks = re.findall(r"^```bash run\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    script = "".join(blocks) + '\necho "template $MOORAGE_RUNPOD_TEMPLATE_ID"\n'
    assert script.count(MODEL) == 2
    binaries = str(Path(sys.executable).parent)
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "scripts").symlink_to(ROOT / "scripts")
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(MODEL, PAINTER)],
        cwd=folder,
        env=own_environ()
        | {
            "PATH": f"{binaries}:{own_environ()['PATH']}",
            "MOORAGE_URL": harbour.url,
            "MOORAGE_KEY": harbour.runpod.key,
            "RUNPOD_API_KEY": harbour.runpod.key,
            "RUNPOD_API_URL": harbour.runpod.api_url,
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "nothing left: ok" in ended.stderr
    assert (folder / "harbour.png").exists()
    (template,) = harbour.runpod.ask("GET", "/v2/templates")["templates"]
    assert f"template {template['id']}\n" in ended.stdout
    assert harbour.runpod.names() == set()
