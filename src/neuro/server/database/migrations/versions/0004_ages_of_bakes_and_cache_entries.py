"""When bakes have ended, and what finds bakes and cache entries by their age."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from neuro.server.database.schema import Moment

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# The end of those that are there is not known; the beginning of their last attempts is.
KNOWN_ENDS = sa.text(
    "UPDATE flow_bakes SET finished_at = coalesce((SELECT max(flow_attempts.created_at)"
    " FROM flow_attempts WHERE flow_attempts.bake_id = flow_bakes.id), created_at)"
    " WHERE status NOT IN ('unknown', 'pending', 'running')"
)


def upgrade() -> None:
    """Apply."""
    op.add_column("flow_bakes", sa.Column("finished_at", Moment(), nullable=True))
    op.execute(KNOWN_ENDS)
    op.create_index("ix_flow_bakes_finished_at", "flow_bakes", ["finished_at"])
    op.create_index("ix_flow_cache_entries_created_at", "flow_cache_entries", ["created_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_flow_cache_entries_created_at", "flow_cache_entries")
    op.drop_index("ix_flow_bakes_finished_at", "flow_bakes")
    op.drop_column("flow_bakes", "finished_at")
