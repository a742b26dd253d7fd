"""RunPod serverless as a provider: endpoints of GPU workers under the caller's own RunPod key."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorage.ports.provider import ProviderConfig
    from moorage_runpod.serverless import RunPodProvider

__all__ = ["provider"]


def provider(config: ProviderConfig) -> RunPodProvider:
    """The entry point `moorage.providers`. Raises ValueError for a setting that cannot be kept."""
    from moorage_runpod.serverless import RunPodProvider
    from moorage_runpod.settings import RunPodSettings

    return RunPodProvider(RunPodSettings.read(config))
