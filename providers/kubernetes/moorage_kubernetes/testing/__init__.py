"""A cluster on loopback for tests: `async with StandInCluster() as cluster:`."""

from __future__ import annotations

from moorage_kubernetes.testing.cluster import StandInCluster
from moorage_kubernetes.testing.controllers.processes import Command, Start
from moorage_kubernetes.testing.faults import Faults, Kind
from moorage_kubernetes.testing.nodes import ANY_MODE, READ_WRITE_ONCE

__all__ = ["ANY_MODE", "READ_WRITE_ONCE", "Command", "Faults", "Kind", "StandInCluster", "Start"]
