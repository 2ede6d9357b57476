"""Which GPUs a job holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Nobody wrote down what earlier jobs hold: theirs stay unknown (NULL)."""
    op.add_column("jobs", sa.Column("gpus", sa.String(1024), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("jobs", "gpus")
