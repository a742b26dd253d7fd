"""The command line: a client of the HTTP API, and `moorage serve`."""

from __future__ import annotations

from moorage.cli.app import main

__all__ = ["main"]
