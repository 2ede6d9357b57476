"""The installation, users, tokens, permissions and jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from neuro.server.database.schema import Moment, Sequence

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ACTIVE = sa.text("status IN ('pending', 'suspended', 'running')")


def upgrade() -> None:
    """Apply."""
    op.create_table("installation", sa.Column("id", sa.String(64), primary_key=True))
    op.create_table(
        "users",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(64), primary_key=True),
        _user(),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("label", sa.String(256), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("revoked_at", Moment(), nullable=True),
    )
    op.create_index("ix_tokens_user", "tokens", ["user"])
    op.create_table(
        "permissions",
        _user(primary_key=True),
        sa.Column("uri", sa.String(1024), primary_key=True),
        sa.Column("action", sa.String(16), nullable=False),
    )
    _create_jobs()


def _user(*, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(
        "user",
        sa.String(64),
        sa.ForeignKey("users.name", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("sequence", Sequence, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=True),
        sa.Column("cluster", sa.String(255), nullable=False),
        sa.Column("engine", sa.String(32), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("started_at", Moment(), nullable=True),
        sa.Column("finished_at", Moment(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("stop_reason", sa.String(64), nullable=True),
        sa.Column("max_run_time_minutes", sa.Integer(), nullable=True),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("placed", sa.Boolean(), nullable=False),
        sa.Column("run_started", sa.Boolean(), nullable=False),
        sa.Column("logs_removed", sa.Boolean(), nullable=False),
        sa.Column("log_bytes", Sequence, nullable=False),
        sa.Column("specification", sa.LargeBinary(), nullable=False),
        sa.Column("transitions", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_jobs_owner_sequence", "jobs", ["owner", "sequence"])
    op.create_index("ix_jobs_status_sequence", "jobs", ["status", "sequence"])
    op.create_index("ix_jobs_created_at", "jobs", ["created_at"])
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"])
    op.create_index("ix_jobs_owner_name_sequence", "jobs", ["owner", "name", "sequence"])
    op.create_index(
        "uq_jobs_active_name",
        "jobs",
        ["owner", "name"],
        unique=True,
        sqlite_where=ACTIVE,
        postgresql_where=ACTIVE,
    )
    op.create_table(
        "job_tags",
        sa.Column("tag", sa.String(256), primary_key=True),
        sa.Column(
            "sequence",
            Sequence,
            sa.ForeignKey("jobs.sequence", ondelete="CASCADE"),
            primary_key=True,
        ),
    )
    op.create_index("ix_job_tags_sequence", "job_tags", ["sequence"])


def downgrade() -> None:
    """Undo."""
    for table in ("job_tags", "jobs", "permissions", "tokens", "users", "installation"):
        op.drop_table(table)
