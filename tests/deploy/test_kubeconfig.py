"""The documented way from an account's token to a kubeconfig: the real kubectl, on a stand-in API server."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from moorage_kubernetes.testing import StandInCluster
from moorage_managed.clusters.kubeconfigs import read_kubeconfigs

from .documented import run
from .manifests import KUBECTL, KUSTOMIZE, built, container, one


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_the_commands_make_what_the_driver_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, mounted, admin = tmp_path / "work", tmp_path / "mounted", tmp_path / "admin.yaml"
    work.mkdir()
    mounted.mkdir()
    admin.touch(mode=0o600)
    monkeypatch.setenv("KUBECONFIG", str(admin))
    documents = built(KUSTOMIZE / "overlays" / "example")
    async with StandInCluster() as cluster:
        admin.write_text(cluster.kubeconfig())
        cluster.add(one(documents, "Namespace", "moorage-system"))
        token = one(documents, "Secret", "moorage-managed-token")
        # What a cluster puts into it.
        filled = {"token": "a.service.account", "ca.crt": cluster.ca, "namespace": "moorage-system"}
        cluster.add({**token, "data": {name: _coded(value) for name, value in filled.items()}})
        await asyncio.to_thread(run, "kubeconfig", work, Path(KUBECTL).parent)
        made = cluster.object("secrets", "moorage-clusters", "moorage-system")
    work.rmdir()  # which fails where a token stayed behind

    mount = next(m for m in container(one(documents, "Deployment"))["volumeMounts"] if m.get("readOnly"))
    setting = one(documents, "ConfigMap", "moorage-settings")["data"]["MOORAGE_MANAGED_KUBECONFIGS"]
    for name, value in made["data"].items():
        (mounted / name).write_bytes(base64.b64decode(value))
    found = read_kubeconfigs(setting.replace(mount["mountPath"], str(mounted)), datetime.now(UTC))
    assert found.keys() == {"here"}
    values = found["here"].values
    assert values["server"] == "https://kubernetes.default.svc"
    assert values["token"] == "a.service.account"
    assert values["certificate_authority"].strip() == cluster.ca.strip()
