"""Kubeconfigs and credential values by which a client reaches the cluster."""

from __future__ import annotations

import base64

import yaml

from moorage_kubernetes.testing.certificates import KeyPair


def kubeconfig(url: str, ca: str, *, token: str | None = None, pair: KeyPair | None = None) -> str:
    """YAML, with everything inline."""
    user = {"token": token} if token is not None else {}
    if pair is not None:
        user = {"client-certificate-data": _coded(pair.certificate), "client-key-data": _coded(pair.key)}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stand-in",
            "clusters": [
                {"name": "stand-in", "cluster": {"server": url, "certificate-authority-data": _coded(ca)}}
            ],
            "users": [{"name": "moorage", "user": user}],
            "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "moorage"}}],
        },
        sort_keys=False,
    )


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
