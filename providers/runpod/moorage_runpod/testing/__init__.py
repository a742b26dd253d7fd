"""A RunPod on loopback: `FakeRunPod` in a test, `python -m moorage_runpod.testing` as a process.

Needs `aiohttp` and `jsonschema-rs`, which the provider itself does without.
"""

from __future__ import annotations

from moorage_runpod.testing.accounts import Account
from moorage_runpod.testing.drift import drift
from moorage_runpod.testing.fake import KEY, FakeRunPod
from moorage_runpod.testing.faults import Faults, Kind

__all__ = ["KEY", "Account", "FakeRunPod", "Faults", "Kind", "drift"]
