"""Credentials of organizations at providers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "provider_credentials",
        sa.Column("id", KEY, nullable=False),
        sa.Column("organization_id", KEY, nullable=False),
        sa.Column("provider", KEY, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_provider_credentials"),
    )
    op.create_index(
        "ix_provider_credentials_organization_id_created_at",
        "provider_credentials",
        ["organization_id", "created_at"],
    )
    op.create_index("ix_provider_credentials_provider", "provider_credentials", ["provider"])


def downgrade() -> None:
    op.drop_table("provider_credentials")
