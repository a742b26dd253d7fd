"""Compute that the operator runs: the provider `managed`.

Loading this package is cheap on purpose: every supervisor process does it, and there is one per endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorage.ports.provider import Provider, ProviderConfig

__all__ = ["provider"]

DRIVER_VARIABLE = "MOORAGE_MANAGED_DRIVER"


def provider(config: ProviderConfig) -> Provider:
    """The entry point `moorage.providers`. Raises ValueError for a setting that cannot be kept."""
    driver = config.environ.get(DRIVER_VARIABLE) or "local"
    if driver == "local":
        return _local(config)
    if driver == "kubernetes":
        return _kubernetes(config)
    raise ValueError(
        f"{DRIVER_VARIABLE} must be 'local' (this machine) or 'kubernetes' (clusters of your own); it is "
        f"{driver!r}. Unset it, or set it to one of these."
    )


def _local(config: ProviderConfig) -> Provider:
    from moorage_managed.local import LocalProvider
    from moorage_managed.settings import LocalSettings

    return LocalProvider(LocalSettings.read(config))


def _kubernetes(config: ProviderConfig) -> Provider:
    try:
        from moorage_kubernetes.endpoints import utc_now
        from moorage_managed.clusters.provider import OperatorClusters
        from moorage_managed.clusters.settings import ClusterSettings
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{DRIVER_VARIABLE}=kubernetes needs {error.name}, which is not installed: install "
            "moorage-managed[kubernetes]"
        ) from error
    return OperatorClusters(ClusterSettings.read(config, utc_now()))
