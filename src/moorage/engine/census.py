"""How many deployments are in which phase, and how long the longest has been: counted as changes come past.

A scrape of the metrics must not read the store. Every process hears of every deployment that is not over, of
its own changes at once and of others' with their route tables, so each knows them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from moorage.domain.deployment import Deployment, Phase

_OVER = (Phase.DELETED, Phase.FAILED)


class Census:
    def __init__(self) -> None:
        self._living: dict[str, tuple[Phase, datetime, int]] = {}  # phase, since when, version

    def heard(self, deployment: Deployment) -> None:
        """As it is stored. What is older than what is known changes nothing."""
        known = self._living.get(deployment.id)
        if known is not None and known[2] > deployment.version:
            return
        if deployment.phase in _OVER:
            self._living.pop(deployment.id, None)
        else:
            since = deployment.deleted_at or deployment.status.phase_since
            self._living[deployment.id] = (deployment.phase, since, deployment.version)

    def counts(self) -> Mapping[Phase, int]:
        """Of every phase that a living deployment can be in."""
        found = Counter(phase for phase, _, _ in self._living.values())
        return {phase: found[phase] for phase in Phase if phase not in _OVER}

    def longest(self, now: datetime) -> Mapping[Phase, float]:
        """Seconds that the one has been in its phase that has been in it longest; 0 where there is none."""
        first: dict[Phase, datetime] = {}
        for phase, since, _ in self._living.values():
            if phase not in first or since < first[phase]:
                first[phase] = since
        return {
            phase: max(0.0, (now - first[phase]).total_seconds()) if phase in first else 0.0
            for phase in Phase
            if phase not in _OVER
        }
