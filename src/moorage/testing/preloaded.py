"""Imported once by the server that killable services are forked from: all that a start would import, kept out
of the collector's sight, so that a fork begins where an ordinary start has been for two seconds."""

import gc
from importlib.metadata import entry_points

import httpcore  # noqa: F401  # each of these is for its being imported
import uvicorn.protocols.http.httptools_impl  # noqa: F401

import moorage.server  # noqa: F401

for entry in entry_points(group="moorage.providers"):
    entry.load()
gc.freeze()
