"""Which jobs are control jobs, to count active ones, and which storage the servers share."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ACTIVE = "status IN ('pending', 'suspended', 'running')"


def upgrade() -> None:
    """Apply. Those that are over are not counted, and stay unmarked."""
    op.add_column(
        "jobs", sa.Column("control", sa.Boolean(), nullable=False, server_default=sa.text("false"))
    )
    # A quote within a text of JSON has a backslash before it, so this is the field and no text.
    connection, needle = op.get_bind(), b'"control":true'
    found = "position(:needle IN specification)"
    if connection.dialect.name == "sqlite":
        found = "instr(specification, :needle)"
    active = sa.text(f"UPDATE jobs SET control = true WHERE {_ACTIVE} AND {found} > 0")  # noqa: S608
    connection.execute(active, {"needle": needle})
    counted = sa.text(f"control AND {_ACTIVE}")
    op.create_index(
        "ix_jobs_active_control",
        "jobs",
        ["owner"],
        sqlite_where=counted,
        postgresql_where=counted,
    )
    op.add_column("installation", sa.Column("storage", sa.String(64), nullable=True))
    # Nobody ever asked for it: what fences a write is the number of its engine's lease.
    op.drop_column("jobs", "version")


def downgrade() -> None:
    """Undo."""
    op.add_column(
        "jobs", sa.Column("version", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    op.drop_column("installation", "storage")
    op.drop_index("ix_jobs_active_control", table_name="jobs")
    op.drop_column("jobs", "control")
