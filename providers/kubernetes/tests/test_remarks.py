"""What an owner is told of a cluster that works, and might not for long, or not in everything."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_asyncio.client import models

from moorage.domain.cluster import GpuNode, StorageClass
from moorage_kubernetes.nodes import node_states
from moorage_kubernetes.remarks import (
    credential_remarks,
    node_remarks,
    storage_remarks,
    token_expiry,
    tool_remarks,
    version_remarks,
)
from moorage_kubernetes.tools import ClusterTools

from .hardware import NOW, node


def token(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJSUzI1NiJ9.{payload}.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("version", "word"),
    [
        ("v1.33.4-gke.12", "gets no more fixes"),
        ("v1.9.0", "gets no more fixes"),
        ("v2.0.0", "not one that this"),
    ],
)
def test_versions_that_are_too_old_or_unknown(version: str, word: str) -> None:
    (remark,) = version_remarks(version)
    assert word in remark


@pytest.mark.parametrize("version", ["v1.34.0", "v1.36.2-eks-1a2b3c", "1.35.1+k3s1", "v1.37.0"])
def test_versions_that_are_well(version: str) -> None:
    assert list(version_remarks(version)) == []


def test_a_token_that_runs_out_is_told_before_and_after() -> None:
    def told(ends: datetime) -> list[str]:
        return list(credential_remarks({"token": token(exp=ends.timestamp())}, NOW))

    assert "ran out at 2026-11-20T23:00:00+00:00" in told(NOW - timedelta(hours=1))[0]
    assert "runs out at 2026-11-21T01:00:00+00:00" in told(NOW + timedelta(hours=1))[0]
    assert told(NOW + timedelta(days=400)) == []


@pytest.mark.parametrize(
    "text", ["", "opaque", "a.b.c", "a.é.c", token(), token(exp="soon"), token(exp=1e300)]
)
def test_a_token_that_does_not_say_when_it_ends_has_no_remark(text: str) -> None:
    assert list(credential_remarks({"token": text}, NOW)) == []


@given(st.text())
def test_any_token_is_read_without_an_error(text: str) -> None:
    for given_ in (text, f"a.{text}.c"):
        found = token_expiry(given_)
        assert found is None or found.tzinfo is UTC


def test_storage_without_a_default_or_without_any() -> None:
    assert "no storage class is the default" in next(storage_remarks([StorageClass("a", "x")]))
    assert "there is no storage class" in next(storage_remarks([]))
    assert list(storage_remarks([StorageClass("a", "x", default=True)])) == []


def test_each_missing_tool_says_what_does_not_work() -> None:
    gpu = [GpuNode("a", "NVIDIA-L4", None, 1, 1)]
    remarks = " ".join(tool_remarks(ClusterTools(), gpu, {}))
    for word in ("KEDA is not installed", "metrics API does not answer", "no DCGM exporter"):
        assert word in remarks
    assert "DCGM" not in " ".join(tool_remarks(ClusterTools(), [], {})), "nobody needs it without GPUs"
    whole = ClusterTools(keda=True, metrics_server=True, dcgm=True, rabbitmq="amqp://q.tools.svc:5672")
    (remark,) = tool_remarks(whole, gpu, {})
    assert "give rabbitmq_url" in remark
    assert list(tool_remarks(whole, gpu, {"rabbitmq_url": "amqp://me:secret@q"})) == []


def test_nodes_that_cannot_be_used_are_named_with_the_reason() -> None:
    raw = [node(f"n{i}", cordoned=True) for i in range(5)]
    raw += [node("ok"), node("odd", {}, gpus=1)]
    sliced = node("mig")
    sliced.status = models.V1NodeStatus(
        allocatable={"nvidia.com/mig-1g.5gb": "7", "cpu": "8"}, conditions=sliced.status.conditions
    )
    raw.append(sliced)
    told = list(node_remarks(node_states(raw, []), raw))
    assert told == [
        "nodes n0, n1, n2 and 2 more cannot be used: cordoned",
        "no label tells the memory of the GPUs of node odd: install the GPU feature discovery, or label the "
        "node nvidia.com/gpu.memory (in MiB)",
        "MIG devices of node mig are not used: they would be with mig.strategy=single",
    ]
