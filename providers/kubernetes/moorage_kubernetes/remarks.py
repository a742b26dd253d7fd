"""What an owner should know about a cluster that can be read, in words. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any  # the client's models are not typed

from moorage.domain.cluster import GpuNode, StorageClass
from moorage_kubernetes.nodes import NodeState
from moorage_kubernetes.tools import ClusterTools

OLDEST_MINOR, NEWEST_MINOR = 34, 36  # of Kubernetes 1, held against its schemas in tests
SOON = timedelta(days=7)
_MIG_DEVICE = "nvidia.com/mig-"


def version_remarks(version: str) -> Iterator[str]:
    match = re.match(r"v?1\.(\d+)", version)
    if match is None:
        yield f"version {version} is not one that this service knows"
    elif int(match[1]) < OLDEST_MINOR:
        yield (
            f"Kubernetes {version} gets no more fixes: 1.{OLDEST_MINOR} to 1.{NEWEST_MINOR} are supported, "
            "older ones may refuse what is sent"
        )


def credential_remarks(values: Mapping[str, str], now: datetime) -> Iterator[str]:
    """A token that `kubectl create token` made runs out, within an hour by default."""
    ends = token_expiry(values.get("token", ""))
    if ends is not None and ends <= now:
        yield f"the token ran out at {ends.isoformat()}: import the cluster again with a new one"
    elif ends is not None and ends - now < SOON:
        yield (
            f"the token runs out at {ends.isoformat()}: use one of a Secret of type "
            "kubernetes.io/service-account-token, which stays"
        )


def token_expiry(token: str) -> datetime | None:
    """Of a service account's token; None for what does not run out, or does not say so. Proves nothing."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (binascii.Error, ValueError, KeyError, TypeError, OverflowError, OSError):
        return None


def storage_remarks(classes: Sequence[StorageClass]) -> Iterator[str]:
    if not classes:
        yield "there is no storage class: persistent volumes cannot be made"
    elif not any(c.default for c in classes):
        yield "no storage class is the default: each volume has to name one"


def tool_remarks(
    tools: ClusterTools, gpu_nodes: Sequence[GpuNode], given: Mapping[str, str]
) -> Iterator[str]:
    if not tools.keda:
        yield "KEDA is not installed: only cpu and ram can be scaled by, and nothing to zero"
    if not tools.metrics_server:
        yield "the metrics API does not answer: cpu and ram cannot be scaled by (install metrics-server)"
    if gpu_nodes and not tools.dcgm:
        yield "no DCGM exporter was found: without its metrics gpu and gram cannot be scaled by"
    if tools.rabbitmq and not given.get("rabbitmq_url"):
        yield (
            f"RabbitMQ was found at {tools.rabbitmq}, which tells no user and password: give rabbitmq_url, "
            "unless it takes guests from other machines"
        )


def node_remarks(nodes: Sequence[NodeState], raw: Sequence[Any]) -> Iterator[str]:
    closed: dict[str, list[str]] = {}
    for node in nodes:
        if node.closed is not None:
            closed.setdefault(node.closed, []).append(node.name)
    for reason, names in sorted(closed.items()):
        yield f"{_some(names)} cannot be used: {reason}"
    unknown = [n.name for n in nodes if n.allocatable.gpus and n.gpu_memory_bytes is None]
    if unknown:
        yield (
            f"no label tells the memory of the GPUs of {_some(unknown)}: install the GPU feature discovery, "
            "or label the node nvidia.com/gpu.memory (in MiB)"
        )
    sliced = [n.metadata.name for n in raw if n.status and _mig_devices(n.status.allocatable or {})]
    if sliced:
        yield f"MIG devices of {_some(sliced)} are not used: they would be with mig.strategy=single"


def _mig_devices(allocatable: Mapping[str, str]) -> bool:
    return any(name.startswith(_MIG_DEVICE) and count != "0" for name, count in allocatable.items())


def _some(names: Sequence[str]) -> str:
    """A few of them, and how many more."""
    told = ", ".join(sorted(names)[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{'nodes' if len(names) > 1 else 'node'} {told}{more}"
