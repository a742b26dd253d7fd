"""Imported once by the server that killable services are forked from: all that a start would import, kept out
of the collector's sight, so that a fork begins where an ordinary start has been for two seconds."""

import contextlib
import gc
import importlib
import pkgutil
from importlib.metadata import entry_points

import httpcore  # noqa: F401  # each of these is for its being imported
import uvicorn.protocols.http.httptools_impl  # noqa: F401

import moorage.server  # noqa: F401

for entry in entry_points(group="moorage.providers"):
    package = importlib.import_module(entry.module)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if "testing" not in module.name.split(".") and not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # an extra that is not installed
                importlib.import_module(module.name)
gc.freeze()
