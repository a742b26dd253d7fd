"""Deployments whose replica only one machine's process can look after."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("deployments", sa.Column("home", KEY, nullable=True))


def downgrade() -> None:
    op.drop_column("deployments", "home")
