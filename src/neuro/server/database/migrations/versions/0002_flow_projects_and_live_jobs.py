"""Projects of flows, and their live jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "flow_projects",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("cluster", sa.String(255), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.UniqueConstraint("cluster", "owner", "name"),
    )
    op.create_table(
        "flow_live_jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column(
            "project_id",
            sa.String(64),
            sa.ForeignKey("flow_projects.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("yaml_id", sa.String(255), nullable=False),
        sa.Column("multi", sa.Boolean(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("raw_id", sa.String(255), nullable=False),
        sa.UniqueConstraint("project_id", "yaml_id"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("flow_live_jobs")
    op.drop_table("flow_projects")
