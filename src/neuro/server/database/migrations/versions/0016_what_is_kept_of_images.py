"""How long images are kept: when manifests were last needed, rules of owners, and quotas."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. What no tag leads to has the whole time from now on."""
    now = str(time.time_ns() // 1000)
    for column in ("touched_at", "pulled_at"):
        default = None if column == "pulled_at" else now
        op.add_column(
            "registry_manifests",
            sa.Column(column, sa.BigInteger(), nullable=default is None, server_default=default),
        )
    op.create_index("ix_registry_manifests_touched_at", "registry_manifests", ["touched_at"])
    op.add_column(
        "registry_tags", sa.Column("set_at", sa.BigInteger(), nullable=False, server_default=now)
    )
    op.create_table(
        "registry_rules",
        sa.Column("path", sa.String(255), nullable=False),
        sa.Column("rules", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_registry_rules"),
    )
    op.create_table(
        "registry_quotas",
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_registry_quotas"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("registry_quotas")
    op.drop_table("registry_rules")
    op.drop_column("registry_tags", "set_at")
    op.drop_index("ix_registry_manifests_touched_at", "registry_manifests")
    op.drop_column("registry_manifests", "pulled_at")
    op.drop_column("registry_manifests", "touched_at")
