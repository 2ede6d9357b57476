"""Bakes with their attempts, tasks, files, images, caches and schedules; keys of submissions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from neuro.server.database.schema import Moment, Sequence

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OPEN = sa.text("status IN ('unknown', 'pending', 'running')")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "job_keys",
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column(
            "sequence",
            Sequence,
            sa.ForeignKey("jobs.sequence", ondelete="CASCADE"),
            nullable=False,
        ),
    )
    op.create_index("ix_job_keys_sequence", "job_keys", ["sequence"])
    _create_bakes()
    _create_attempts_and_tasks()
    _create_files_and_images()
    _create_cache_entries()
    _create_schedules()


def _create_bakes() -> None:
    op.create_table(
        "flow_bakes",
        sa.Column("sequence", Sequence, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        _parent("project_id", "flow_projects.id"),
        sa.Column("batch", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("graphs", sa.LargeBinary(), nullable=False),
        sa.Column("details", sa.LargeBinary(), nullable=False),
    )
    op.create_index(
        "ix_flow_bakes_project_id_created_at_sequence",
        "flow_bakes",
        ["project_id", "created_at", "sequence"],
    )
    op.create_index("ix_flow_bakes_project_id_name", "flow_bakes", ["project_id", "name"])
    op.create_index(
        "uq_flow_bakes_open_name",
        "flow_bakes",
        ["project_id", "name"],
        unique=True,
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )
    op.create_table(
        "flow_bake_tags",
        sa.Column("tag", sa.String(255), primary_key=True),
        sa.Column(
            "sequence",
            Sequence,
            sa.ForeignKey("flow_bakes.sequence", ondelete="CASCADE"),
            primary_key=True,
        ),
    )
    op.create_index("ix_flow_bake_tags_sequence", "flow_bake_tags", ["sequence"])


def _create_attempts_and_tasks() -> None:
    op.create_table(
        "flow_attempts",
        sa.Column("id", sa.String(64), primary_key=True),
        _parent("bake_id", "flow_bakes.id"),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("result", sa.String(16), nullable=False),
        sa.Column("executor_id", sa.String(255), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("configs", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("bake_id", "number"),
    )
    op.create_index("ix_flow_attempts_result", "flow_attempts", ["result"])
    op.create_table(
        "flow_tasks",
        sa.Column("id", sa.String(64), primary_key=True),
        _parent("attempt_id", "flow_attempts.id"),
        sa.Column("yaml_id", sa.String(1024), nullable=False),
        sa.Column("raw_id", sa.String(255), nullable=True),
        sa.Column("statuses", sa.LargeBinary(), nullable=False),
        sa.Column("outputs", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.LargeBinary(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.UniqueConstraint("attempt_id", "yaml_id"),
    )


def _create_files_and_images() -> None:
    op.create_table(
        "flow_config_files",
        sa.Column("id", sa.String(64), primary_key=True),
        _parent("bake_id", "flow_bakes.id"),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_flow_config_files_bake_id", "flow_config_files", ["bake_id"])
    op.create_table(
        "flow_bake_images",
        sa.Column("id", sa.String(64), primary_key=True),
        _parent("bake_id", "flow_bakes.id"),
        sa.Column("ref", sa.String(1024), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("yaml_defs", sa.LargeBinary(), nullable=False),
        sa.Column("context_on_storage", sa.Text(), nullable=True),
        sa.Column("dockerfile_rel", sa.Text(), nullable=True),
        sa.Column("builder_job_id", sa.String(255), nullable=True),
        sa.UniqueConstraint("bake_id", "ref"),
    )


def _create_cache_entries() -> None:
    op.create_table(
        "flow_cache_entries",
        sa.Column("id", sa.String(64), primary_key=True),
        _parent("project_id", "flow_projects.id"),
        sa.Column("batch", sa.String(255), nullable=False),
        sa.Column("task_id", sa.String(1024), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("raw_id", sa.String(255), nullable=False),
        sa.Column("outputs", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("project_id", "batch", "task_id", "key"),
    )


def _create_schedules() -> None:
    op.create_table(
        "flow_schedules",
        sa.Column("id", sa.String(64), primary_key=True),
        _parent("project_id", "flow_projects.id"),
        sa.Column("batch", sa.String(255), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("cron", sa.String(255), nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("overlap", sa.String(16), nullable=False),
        sa.Column("catch_up", sa.String(16), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("next_at", Moment(), nullable=True),
        sa.Column("last_at", Moment(), nullable=True),
        sa.Column("last_bake_id", sa.String(64), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("project_id", "batch"),
    )
    op.create_index("ix_flow_schedules_next_at", "flow_schedules", ["next_at"])


def _parent(name: str, column: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(64), sa.ForeignKey(column, ondelete="CASCADE"), nullable=False)


def downgrade() -> None:
    """Undo."""
    for table in (
        "flow_schedules",
        "flow_cache_entries",
        "flow_bake_images",
        "flow_config_files",
        "flow_tasks",
        "flow_attempts",
        "flow_bake_tags",
        "flow_bakes",
        "job_keys",
    ):
        op.drop_table(table)
