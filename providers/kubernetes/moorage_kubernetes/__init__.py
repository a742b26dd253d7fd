"""Kubernetes as a provider: clusters that organizations import, by server-side apply."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorage.ports.provider import ProviderConfig
    from moorage_kubernetes.cluster_provider import KubernetesProvider

__all__ = ["provider"]


def provider(config: ProviderConfig) -> KubernetesProvider:
    """The entry point `moorage.providers`. Raises ValueError for a setting that cannot be kept."""
    from moorage_kubernetes.cluster_provider import KubernetesProvider
    from moorage_kubernetes.settings import KubernetesSettings

    return KubernetesProvider(KubernetesSettings.read(config), config.resolve)
