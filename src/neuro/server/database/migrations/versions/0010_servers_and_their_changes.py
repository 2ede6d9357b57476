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
    op.create_table(
        "flow_turns",
        sa.Column("sequence", Sequence, autoincrement=True, nullable=False),
        sa.Column("attempt_id", sa.String(64), nullable=False),
        sa.Column("bake_id", sa.String(64), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("place", sa.String(64), nullable=False),
        sa.Column("cancels", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_flow_turns"),
        sa.UniqueConstraint("attempt_id", name="uq_flow_turns_attempt_id"),
        sa.ForeignKeyConstraint(
            ["attempt_id"],
            ["flow_attempts.id"],
            name="fk_flow_turns_attempt_id",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "ix_flow_turns_project_id_place_sequence", "flow_turns", ["project_id", "place", "sequence"]
    )
    op.create_table(
        "flow_drivers",
        sa.Column("attempt_id", sa.String(64), nullable=False),
        sa.Column("server_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", "server_id", name="pk_flow_drivers"),
        sa.ForeignKeyConstraint(
            ["attempt_id"],
            ["flow_attempts.id"],
            name="fk_flow_drivers_attempt_id",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_flow_drivers_server_id", "flow_drivers", ["server_id"])
    op.add_column("flow_attempts", sa.Column("deaths", sa.LargeBinary(), nullable=True))
    op.add_column("installation", sa.Column("key_digest", sa.String(64), nullable=True))
    op.add_column("installation", sa.Column("cluster", sa.String(255), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("installation", "cluster")
    op.drop_column("installation", "key_digest")
    op.drop_column("flow_attempts", "deaths")
    op.drop_column("jobs", "version")
    for table in ("flow_drivers", "flow_turns", "intents", "changes", "leases", "servers"):
        op.drop_table(table)
