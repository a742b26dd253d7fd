"""What the service says to a worker, the worker understands. Neither imports the other: a test compares."""

from __future__ import annotations

import pytest

from moorage.adapters.registry import catalog
from moorage_worker.settings import parse_settings


@pytest.mark.parametrize("dtype", sorted({spec.dtype for spec in catalog().models.values()}))
def test_every_dtype_of_the_registry_starts_a_worker(dtype: str) -> None:
    environ = {"MOORAGE_WORKER_MODEL": "acme/painter", "MOORAGE_WORKER_DTYPE": dtype}
    assert parse_settings([], environ).dtype is not None
