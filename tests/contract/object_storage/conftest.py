"""An S3 server that checks signatures, shared with the worker's tests, which fill the cache."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "worker" / "tests"))

if TYPE_CHECKING:
    from worker_harness.s3 import S3Server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """One server for the tests of a module, which keep apart by buckets and users."""
    from worker_harness.s3 import S3Server

    with S3Server().serving() as serving:
        yield serving
