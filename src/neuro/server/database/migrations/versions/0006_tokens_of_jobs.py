"""Which job a token was given to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Until now only the label says so, which people choose for their own tokens too.
GIVEN_TO_JOBS = sa.text(
    "UPDATE tokens SET job = substr(label, 5) WHERE label LIKE 'job job-%' AND EXISTS"
    ' (SELECT 1 FROM jobs WHERE jobs.id = substr(tokens.label, 5) AND jobs.owner = tokens."user")'
)


def upgrade() -> None:
    """Apply."""
    op.add_column("tokens", sa.Column("job", sa.String(64), nullable=True))
    op.execute(GIVEN_TO_JOBS)
    op.create_index("ix_tokens_job", "tokens", ["job"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_tokens_job", "tokens")
    op.drop_column("tokens", "job")
