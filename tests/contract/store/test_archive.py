"""Every store is an archive, and serves what was restored into it."""

from __future__ import annotations

import pytest

from moorage.ports.store import Archive
from moorage.testing.archive import MemoryArchive
from moorage.testing.archive_contract import ArchiveContract


class TestMemoryArchive(ArchiveContract):
    @pytest.fixture
    def archive(self) -> Archive:
        return MemoryArchive()
