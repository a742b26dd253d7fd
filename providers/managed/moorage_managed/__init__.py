"""Compute that the operator runs: the provider `managed`.

Loading this package is cheap on purpose: every supervisor process does it, and there is one per endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorage.ports import ProviderConfig
    from moorage_managed.local import LocalProvider

__all__ = ["provider"]

DRIVER_VARIABLE = "MOORAGE_MANAGED_DRIVER"


def provider(config: ProviderConfig) -> LocalProvider:
    """The entry point `moorage.providers`. Raises ValueError for a setting that cannot be kept."""
    driver = config.environ.get(DRIVER_VARIABLE) or "local"
    if driver != "local":
        raise ValueError(
            f"{DRIVER_VARIABLE} must be 'local', the one driver of this provider; it is {driver!r}. "
            "Unset it, or set it to 'local'."
        )
    from moorage_managed.local import LocalProvider
    from moorage_managed.settings import LocalSettings

    return LocalProvider(LocalSettings.read(config))
