"""Callers that are programs, and whose they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from neuro.server.database.schema import Moment

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "service_accounts",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=True),
        sa.Column("default_cluster", sa.String(255), nullable=False),
        sa.Column("default_project", sa.String(255), nullable=False),
        sa.Column("default_org", sa.String(255), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_service_accounts"),
        sa.ForeignKeyConstraint(
            ["user"], ["users.name"], ondelete="CASCADE", name="fk_service_accounts_user"
        ),
        sa.ForeignKeyConstraint(["owner"], ["users.name"], name="fk_service_accounts_owner"),
    )
    op.create_index("ix_service_accounts_user", "service_accounts", ["user"], unique=True)
    op.create_index("ix_service_accounts_owner", "service_accounts", ["owner"])


def downgrade() -> None:
    """Undo. Accounts stay as users, whose tokens are good."""
    op.drop_table("service_accounts")
