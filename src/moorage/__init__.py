"""Moorage deploys a model to the cheapest compute it fits on, waits until it answers, and looks after it."""

__version__ = "0.1.0"
