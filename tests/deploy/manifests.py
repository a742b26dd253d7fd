"""The manifests as `kubectl kustomize` builds them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any  # YAML documents

import yaml

from .programs import program

ROOT = Path(__file__).parents[2]
KUSTOMIZE = ROOT / "deploy" / "kustomize"
KUBECTL = program("kubectl")

Document = dict[str, Any]


@cache
def _built(folder: str) -> str:
    built = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return built.stdout


def built(folder: Path) -> list[Document]:
    return [document for document in yaml.safe_load_all(_built(str(folder))) if document]


def one(documents: Iterable[Document], kind: str, name: str = "moorage") -> Document:
    """Names of generated objects end in a digest."""
    [found] = [d for d in documents if d["kind"] == kind and _is(d["metadata"]["name"], name)]
    return found


def container(deployment: Document) -> Document:
    [found] = deployment["spec"]["template"]["spec"]["containers"]
    return dict(found)


def _is(found: str, name: str) -> bool:
    return found == name or (found.rpartition("-")[0] == name and len(found.rpartition("-")[2]) == 10)
