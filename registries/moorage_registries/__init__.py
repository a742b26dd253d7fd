"""Data that ships with Moorage: GPUs, prices, model specs and runtimes. See `schema` for its form."""

from moorage_registries.loader import load

__all__ = ["load"]
