"""The operator's settings of the driver `kubernetes`, read once and refused with the name of the one at
fault. How objects are made (images, patience) is set for all clusters alike, by MOORAGE_KUBERNETES_*."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from moorage.domain.compute import GIB
from moorage.ports.provider import Credentials, ProviderConfig
from moorage_kubernetes.settings import KubernetesSettings, is_dns_label
from moorage_kubernetes.tenancy import NamespaceForEach, Quota
from moorage_managed.clusters.kubeconfigs import VARIABLE, read_kubeconfigs
from moorage_managed.settings import PREFIX, number

DEFAULT_PREFIX = "moorage"
LONGEST_PREFIX = 20  # an organization's own part needs the rest of 63
DEFAULT_ENTRANCES = "kube-system"
UNLIMITED = "none"

# What one organization may ask for on one cluster, where the operator says nothing.
USUAL = Quota(cpus=32, memory_bytes=128 * GIB, gpus=8, storage_bytes=500 * GIB, pods=100)


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """`accounts` are the clusters by name; `price_per_hour` of one replica, where nothing tells what its node
    costs."""

    kubernetes: KubernetesSettings
    tenancy: NamespaceForEach
    price_per_hour: float | None
    accounts: Mapping[str, Credentials] = field(repr=False)

    @classmethod
    def read(cls, config: ProviderConfig, now: datetime) -> ClusterSettings:
        """Blocks. Raises ValueError with the variable, or the file, and the rule that it breaks."""
        environ = config.environ
        return cls(
            kubernetes=KubernetesSettings.read(config),
            tenancy=NamespaceForEach(_prefix(environ), organization_quota(environ), _entrances(environ)),
            price_per_hour=number(environ, "PRICE_PER_HOUR", least=0),
            accounts=read_kubeconfigs(environ.get(VARIABLE) or "", now),
        )


def _prefix(environ: Mapping[str, str]) -> str:
    prefix = environ.get(f"{PREFIX}NAMESPACE_PREFIX") or DEFAULT_PREFIX
    if not is_dns_label(prefix) or len(prefix) > LONGEST_PREFIX:
        raise ValueError(
            f"{PREFIX}NAMESPACE_PREFIX must be at most {LONGEST_PREFIX} lower-case letters, digits and "
            f"hyphens; it is {prefix!r}"
        )
    return prefix


def _entrances(environ: Mapping[str, str]) -> tuple[str, ...]:
    text = environ.get(f"{PREFIX}ENTRANCES") or DEFAULT_ENTRANCES
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    if names == (UNLIMITED,):
        return ()
    wrong = [name for name in names if not is_dns_label(name)]
    if wrong:
        raise ValueError(f"{PREFIX}ENTRANCES must be namespaces, by comma, or none; {wrong[0]!r} is not one")
    return names


def organization_quota(environ: Mapping[str, str]) -> Quota:
    """Raises ValueError."""
    return Quota(
        cpus=_limit(environ, "QUOTA_CPUS", USUAL.cpus),
        memory_bytes=_whole(environ, "QUOTA_MEMORY_GIB", USUAL.memory_bytes, GIB),
        gpus=_whole(environ, "QUOTA_GPUS", USUAL.gpus),
        storage_bytes=_whole(environ, "QUOTA_STORAGE_GIB", USUAL.storage_bytes, GIB),
        pods=_whole(environ, "QUOTA_PODS", USUAL.pods),
    )


def _limit(environ: Mapping[str, str], name: str, usual: float | None) -> float | None:
    if environ.get(f"{PREFIX}{name}") == UNLIMITED:
        return None
    value = number(environ, name, least=0)
    return usual if value is None else value


def _whole(environ: Mapping[str, str], name: str, usual: int | None, unit: int = 1) -> int | None:
    value = _limit(environ, name, None if usual is None else usual / unit)
    if value is not None and value != int(value):
        raise ValueError(f"{PREFIX}{name} must be a whole number, or {UNLIMITED}; it is {value:g}")
    return None if value is None else int(value) * unit
