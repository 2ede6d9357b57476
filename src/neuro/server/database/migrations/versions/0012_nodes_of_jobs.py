"""Which node of its engine a job was given."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Until now each engine had one node, so nobody had to write it down."""
    op.add_column("jobs", sa.Column("node", sa.String(255), nullable=False, server_default=""))


def downgrade() -> None:
    """Undo."""
    op.drop_column("jobs", "node")
