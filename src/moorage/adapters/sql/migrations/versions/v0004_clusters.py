"""Clusters, their node groups, and model versions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    # What loads or sleeps is routed too: a request for it is told so, or wakes it.
    op.execute("UPDATE deployments SET serving = true WHERE phase NOT IN ('deleted', 'failed')")
    op.create_table(
        "clusters",
        sa.Column("id", KEY, nullable=False),
        sa.Column("organization_id", KEY, nullable=False),
        sa.Column("held_name", KEY, nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_clusters"),
    )
    op.create_index("uq_clusters_held_name", "clusters", ["organization_id", "held_name"], unique=True)
    op.create_table(
        "node_groups",
        sa.Column("id", KEY, nullable=False),
        sa.Column("organization_id", KEY, nullable=False),
        sa.Column("cluster_id", KEY, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_node_groups"),
    )
    op.create_index(
        "ix_node_groups_organization_id_cluster_id", "node_groups", ["organization_id", "cluster_id"]
    )
    op.create_table(
        "model_versions",
        sa.Column("id", KEY, nullable=False),
        sa.Column("organization_id", KEY, nullable=False),
        sa.Column("held_name", KEY, nullable=True),
        sa.Column("model_version", KEY, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_versions"),
    )
    op.create_index(
        "uq_model_versions_held_name",
        "model_versions",
        ["organization_id", "held_name", "model_version"],
        unique=True,
    )
    op.create_index(
        "ix_model_versions_organization_id_created_at_id",
        "model_versions",
        ["organization_id", "created_at", "id"],
    )


def downgrade() -> None:
    op.drop_table("model_versions")
    op.drop_table("node_groups")
    op.drop_table("clusters")
