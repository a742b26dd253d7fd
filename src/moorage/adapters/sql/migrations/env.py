"""Alembic's entry: runs the steps on the connection, and in the transaction, that `migrate` hands over."""

from __future__ import annotations

from alembic import context

from moorage.adapters.sql.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,  # SQLite cannot alter most of a table in place
)
context.run_migrations()
