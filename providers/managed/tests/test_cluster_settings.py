"""The operator's settings of the driver `kubernetes`: each that cannot be kept is named with its rule."""

from __future__ import annotations

import base64
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
import yaml

import moorage_managed
from moorage.domain.compute import GIB
from moorage.ports.provider import ProviderConfig
from moorage_kubernetes.tenancy import Quota
from moorage_managed.clusters.settings import USUAL, ClusterSettings

NOW = datetime.now(UTC)
AUTHORITY = trustme.CA().cert_pem.bytes()
TOKEN = "a-token-that-must-not-be-told"


def coded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def kubeconfig(path: Path, server: str = "https://east.example.com:6443", user: object = None) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "main",
        "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        "clusters": [
            {"name": "c", "cluster": {"server": server, "certificate-authority-data": coded(AUTHORITY)}}
        ],
        "users": [{"name": "u", "user": user or {"token": TOKEN}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def read(tmp_path: Path, kubeconfigs: str, **environ: str) -> ClusterSettings:
    named = {f"MOORAGE_MANAGED_{name}": value for name, value in environ.items()}
    named["MOORAGE_MANAGED_KUBECONFIGS"] = kubeconfigs
    return ClusterSettings.read(ProviderConfig(tmp_path, named, installation="inst"), NOW)


class TestKubeconfigs:
    def test_clusters_are_named_after_their_files_or_as_they_are_given(self, tmp_path: Path) -> None:
        east = kubeconfig(tmp_path / "east.yaml")
        west = kubeconfig(tmp_path / "config", "https://west.example.com")
        found = read(tmp_path, f"{east}{os.pathsep}west={west}{os.pathsep}")
        assert {name: c.values["server"] for name, c in found.accounts.items()} == {
            "east": "https://east.example.com:6443",
            "west": "https://west.example.com",
        }
        assert "namespace" not in found.accounts["east"].values
        assert TOKEN not in repr(found)

    def test_one_must_be_named(self, tmp_path: Path) -> None:
        for text in ("", os.pathsep):
            with pytest.raises(ValueError, match="MOORAGE_MANAGED_KUBECONFIGS must name the kubeconfig"):
                read(tmp_path, text)

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"missing\.yaml cannot be read: No such file"):
            read(tmp_path, str(tmp_path / "missing.yaml"))

    def test_two_of_one_name_or_of_one_cluster_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        one, two = (
            kubeconfig(tmp_path / "one.yaml"),
            kubeconfig(tmp_path / "a" / "one.yaml", "https://b.test"),
        )
        with pytest.raises(ValueError, match="two clusters have the name 'one'"):
            read(tmp_path, f"{one}{os.pathsep}{two}")
        with pytest.raises(ValueError, match="one and other are one cluster"):
            read(tmp_path, f"{one}{os.pathsep}other={one}")

    def test_a_name_that_cannot_be_one_is_refused(self, tmp_path: Path) -> None:
        path = kubeconfig(tmp_path / "my cluster.yaml")
        with pytest.raises(ValueError, match=r"'my cluster' is no name for a cluster.*Write name=path"):
            read(tmp_path, str(path))

    @pytest.mark.parametrize(
        ("rule", "user"),
        [
            ("exec_plugin", {"exec": {"command": "aws"}}),
            ("file_path", {"tokenFile": "token"}),
            ("file_path", {"client-certificate": "cert.pem"}),
            ("impersonation", {"token": TOKEN, "as": "root"}),
            ("required", {"token": ""}),
        ],
    )
    def test_the_file_and_the_rule_are_named_and_no_secret(
        self, tmp_path: Path, rule: str, user: dict[str, object]
    ) -> None:
        path = kubeconfig(tmp_path / "east.yaml", user=user)
        with pytest.raises(ValueError, match=f"{path} breaks the rule {rule}: ") as raised:
            read(tmp_path, str(path))
        assert TOKEN not in str(raised.value)

    @pytest.mark.parametrize(("content", "told"), [(b"\xff\xfe", "UTF-8"), (b"{", "no YAML")])
    def test_a_file_of_something_else_is_refused(self, tmp_path: Path, content: bytes, told: str) -> None:
        path = tmp_path / "east.yaml"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=told):
            read(tmp_path, str(path))

    def test_a_certificate_that_has_expired_is_refused(self, tmp_path: Path) -> None:
        pair = trustme.CA().issue_cert("moorage@example.com", not_after=NOW - timedelta(days=1))
        certificate, key = pair.cert_chain_pems[0].bytes(), pair.private_key_pem.bytes()
        user = {"client-certificate-data": coded(certificate), "client-key-data": coded(key)}
        path = kubeconfig(tmp_path / "east.yaml", user=user)
        with pytest.raises(ValueError, match="breaks the rule expired"):
            read(tmp_path, str(path))


class TestOthers:
    def test_an_organization_has_a_quota_where_nobody_says_one(self, tmp_path: Path) -> None:
        found = read(tmp_path, str(kubeconfig(tmp_path / "east.yaml")))
        assert found.tenancy.quota == USUAL
        assert (found.tenancy.prefix, found.tenancy.entrances) == ("moorage", ("kube-system",))
        assert found.price_per_hour is None

    def test_each_limit_can_be_set_and_taken_away(self, tmp_path: Path) -> None:
        limits = {"CPUS": "2.5", "MEMORY_GIB": "16", "GPUS": "0", "STORAGE_GIB": "none", "PODS": "9"}
        settings = {f"QUOTA_{name}": value for name, value in limits.items()}
        found = read(tmp_path, str(kubeconfig(tmp_path / "east.yaml")), **settings, ENTRANCES="none")
        assert found.tenancy.quota == Quota(2.5, 16 * GIB, 0, None, 9)
        assert found.tenancy.entrances == ()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("QUOTA_CPUS", "lots"),
            ("QUOTA_CPUS", "-1"),
            ("QUOTA_GPUS", "1.5"),
            ("QUOTA_MEMORY_GIB", "inf"),
            ("QUOTA_PODS", "nan"),
            ("NAMESPACE_PREFIX", "Shared"),
            ("NAMESPACE_PREFIX", "a" * 21),
            ("ENTRANCES", "envoy, not a name"),
            ("PRICE_PER_HOUR", "-0.1"),
        ],
    )
    def test_a_bad_value_is_named(self, tmp_path: Path, name: str, value: str) -> None:
        with pytest.raises(ValueError, match=f"MOORAGE_MANAGED_{name} must be"):
            read(tmp_path, str(kubeconfig(tmp_path / "east.yaml")), **{name: value})

    def test_the_extra_is_named_where_it_is_not_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "moorage_kubernetes.endpoints", None)
        moorage_managed.provider(ProviderConfig(tmp_path, {}))
        with pytest.raises(ValueError, match=r"install moorage-managed\[kubernetes\]"):
            moorage_managed.provider(ProviderConfig(tmp_path, {"MOORAGE_MANAGED_DRIVER": "kubernetes"}))
