"""Names that were somebody's, and are nobody's again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from neuro.server.database.schema import Moment

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Who was removed before is known no more, but for those who had jobs or projects."""
    op.create_table(
        "retired_users",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("retired_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_retired_users"),
    )
    op.execute(
        sa.text(
            "INSERT INTO retired_users (name, retired_at)"
            " SELECT owner, 0 FROM (SELECT owner FROM jobs UNION SELECT owner FROM flow_projects)"
            " AS known WHERE owner NOT IN (SELECT name FROM users) AND length(owner) <= 64"
        )
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("retired_users")
