"""Any number of GPUs of a job, whatever their names are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    _have(sa.String())


def downgrade() -> None:
    """Undo."""
    _have(sa.String(1024), "left(gpus, 1024)")


def _have(kind: sa.String, using: str | None = None) -> None:
    if op.get_bind().dialect.name == "postgresql":  # SQLite keeps any text in any of them.
        op.alter_column("jobs", "gpus", type_=kind, postgresql_using=using)
