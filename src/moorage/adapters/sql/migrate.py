"""Brings the tables up to date at start.

The caller holds the database's one write lock, so of several processes that start together one migrates and
the others then find nothing to do.
"""

from __future__ import annotations

import threading

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from moorage.errors import StoreUnusable

_alone = threading.Lock()  # Alembic keeps what it works on in its modules


def migrate(connection: Connection, revision: str = "head") -> None:
    """Upgrades within the connection's open transaction. Raises StoreUnusable for tables of a newer
    release."""
    with _alone:
        if not _is_current(connection):
            command.upgrade(alembic_config(connection), revision)


def is_current(connection: Connection) -> bool:
    """Whether there is nothing to do. Raises as `migrate` does."""
    with _alone:
        return _is_current(connection)


def alembic_config(connection: Connection) -> Config:
    """Alembic's settings for the steps in this package; there is no ini file."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "moorage.adapters.sql:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _is_current(connection: Connection) -> bool:
    script = ScriptDirectory.from_config(alembic_config(connection))
    found, newest = MigrationContext.configure(connection).get_current_heads(), script.get_heads()
    for revision in found:
        try:
            script.get_revision(revision)
        except CommandError as error:
            raise StoreUnusable(
                f"the database's tables are at revision {revision} of a newer release, and this one knows"
                f" them up to {', '.join(newest)}; upgrade Moorage or restore a backup"
            ) from error
    return sorted(found) == sorted(newest)
