"""Whose a bake is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Who submitted those that are there: the owner of their first main job, or of the schedule that
# started them, or else of their project.
KNOWN_OWNERS = sa.text(
    "UPDATE flow_bakes SET owner = coalesce("
    "(SELECT jobs.owner FROM flow_attempts JOIN jobs ON jobs.id = flow_attempts.executor_id"
    " WHERE flow_attempts.bake_id = flow_bakes.id ORDER BY flow_attempts.number LIMIT 1),"
    " (SELECT max(flow_schedules.owner) FROM flow_schedules"
    " WHERE flow_schedules.last_bake_id = flow_bakes.id),"
    " (SELECT flow_projects.owner FROM flow_projects"
    " WHERE flow_projects.id = flow_bakes.project_id))"
)


def upgrade() -> None:
    """Apply."""
    op.add_column("flow_bakes", sa.Column("owner", sa.String(255), nullable=True))
    op.execute(KNOWN_OWNERS)


def downgrade() -> None:
    """Undo."""
    op.drop_column("flow_bakes", "owner")
