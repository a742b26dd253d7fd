"""Brings the tables up to date at start.

The caller holds the database's one write lock, so of several processes that start together one migrates and
the others then find nothing to do.
"""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def migrate(connection: Connection, revision: str = "head") -> None:
    """Upgrades within the connection's open transaction."""
    command.upgrade(alembic_config(connection), revision)


def alembic_config(connection: Connection) -> Config:
    """Alembic's settings for the steps in this package; there is no ini file."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "moorage.adapters.sql:migrations")
    config.set_main_option("path_separator", "os")
    return config
