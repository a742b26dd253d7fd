"""Reads the TOML files that ship in this package and checks them together."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from pydantic import ValidationError

from moorage_registries.schema import File, Registry

FOLDERS = ("gpus", "prices", "instances", "models", "runtimes")


@cache
def load() -> Registry:
    """The whole registry, read once a process. Raises ValueError that names the file at fault."""
    parts = [
        _read(f"{folder}/{entry.name}", entry.read_text("utf-8"))
        for folder in FOLDERS
        for entry in sorted((files("moorage_registries") / folder).iterdir(), key=lambda item: item.name)
        if entry.name.endswith(".toml")
    ]
    tiers = [part.tiers for part in parts if part.tiers is not None]
    if len(tiers) != 1:
        raise ValueError(f"exactly one file must hold [tiers], found {len(tiers)}")
    runtimes = sorted((r for part in parts for r in part.runtimes), key=lambda runtime: runtime.order)
    return Registry(
        tiers=tiers[0],
        gpus=tuple(gpu for part in parts for gpu in part.gpus),
        prices=tuple(price for part in parts for price in part.prices),
        instances=tuple(instance for part in parts for instance in part.instances),
        models=tuple(model for part in parts for model in part.models),
        runtimes=tuple(runtimes),
    )


def _read(name: str, text: str) -> File:
    try:
        return File.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ValueError(f"{name}: {error}") from error
