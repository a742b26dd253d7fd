"""Engines: one per runtime that can run a model. The rest of the worker sees `engines.base` only."""
