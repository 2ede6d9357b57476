"""Several servers on one database: who they are, their leases, and what they tell each other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from neuro.server.database.schema import Moment, Sequence

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "servers",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=True),
        sa.Column("url", sa.String(255), nullable=False),
        sa.Column("started_at", Moment(), nullable=False),
        sa.Column("seen_at", Moment(), nullable=False),
        sa.Column("offer", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_servers"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("holder", sa.String(128), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.create_table(
        "changes",
        sa.Column("sequence", Sequence, autoincrement=True, nullable=False),
        sa.Column("xid", sa.BigInteger(), nullable=False),
        sa.Column("server", sa.String(64), nullable=False),
        sa.Column("topic", sa.String(16), nullable=False),
        sa.Column("keys", sa.Text(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_changes"),
    )
    op.create_index("ix_changes_xid", "changes", ["xid"])
    op.create_table(
        "intents",
        sa.Column("sequence", Sequence, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_intents"),
    )
    op.create_index("ix_intents_job_id", "intents", ["job_id"])
    op.add_column(
        "jobs", sa.Column("version", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column("installation", sa.Column("key_digest", sa.String(64), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("installation", "key_digest")
    op.drop_column("jobs", "version")
    for table in ("intents", "changes", "leases", "servers"):
        op.drop_table(table)
