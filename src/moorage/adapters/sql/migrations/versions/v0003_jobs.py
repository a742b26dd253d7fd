"""Jobs, and what they bring and leave."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", KEY, nullable=False),
        sa.Column("organization_id", KEY, nullable=False),
        sa.Column("deployment_id", KEY, nullable=False),
        sa.Column("state", KEY, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("lease_token", KEY, nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("woken_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("forget_at", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index(
        "ix_jobs_deployment_id_state_created_at_size_retries",
        "jobs",
        ["deployment_id", "state", "created_at", "size", "retries"],
    )
    _partial("ix_jobs_queue", "due_at", "deployment_id", "rank", "created_at", "id")
    _partial("ix_jobs_due", "due_at", "due_at")
    _partial("ix_jobs_held", "lease_token", "lease_token", "lease_until", "due_at")
    _partial("ix_jobs_expires_at", "expires_at", "expires_at")
    _partial("ix_jobs_forget_at", "forget_at", "forget_at")
    op.create_table(
        "job_payloads",
        sa.Column("id", KEY, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job_payloads"),
    )


def downgrade() -> None:
    op.drop_table("job_payloads")
    op.drop_table("jobs")


def _partial(name: str, there: str, *columns: str) -> None:
    """An index on the rows in which `there` is set."""
    condition = sa.text(f"{there} IS NOT NULL")
    op.create_index(name, "jobs", list(columns), sqlite_where=condition, postgresql_where=condition)
