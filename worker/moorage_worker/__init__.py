"""One process that serves one model over HTTP.

Apart from the control plane on purpose: it imports nothing of it, so that the same program runs as a local
process, in a container, or on a rented machine, and so that a crash of one side is not a crash of the other.
"""

from __future__ import annotations

from moorage_worker.engines.catalog import available_engines

__all__ = ["__version__", "available_engines"]

__version__ = "0.1.0"
