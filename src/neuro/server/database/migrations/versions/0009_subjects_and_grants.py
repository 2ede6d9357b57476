"""Subjects, and grants with an end and a maker, in place of users' permissions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from neuro.server.database.schema import Moment

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Whose the thing behind a URI is: the name after the cluster's, or after the scheme where a URI
# names no cluster.
_REST = "substr(uri, instr(uri, '://') + 3)"
_BEHIND = f"substr({_REST} || '/', instr({_REST} || '/', '/') + 1)"
_FIRST = "substr({0} || '/', 1, instr({0} || '/', '/') - 1)"
OWNER = (
    f"CASE WHEN uri LIKE 'role:%' OR uri LIKE 'user:%' THEN {_FIRST.format(_REST)}"
    f" WHEN uri LIKE 'cluster:%' THEN '' ELSE {_FIRST.format(_BEHIND)} END"
)


def upgrade() -> None:
    """Apply. All that users had they have; it came with being users, so nobody has granted it."""
    op.create_table(
        "subjects",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(64), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_subjects"),
    )
    op.create_index("ix_subjects_owner", "subjects", ["owner"])
    op.create_table(
        "grants",
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("uri", sa.String(1500), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("granted_by", sa.String(64), nullable=True),
        sa.Column("granted_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("subject", "uri", "action", name="pk_grants"),
        sa.ForeignKeyConstraint(
            ["subject"], ["subjects.name"], name="fk_grants_subject", ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
    for column in ("owner", "granted_by", "expires_at"):
        op.create_index(f"ix_grants_{column}", "grants", [column])
    op.create_table(
        "grant_generations",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_grant_generations"),
    )
    op.execute(
        sa.text(
            "INSERT INTO subjects (name, kind, created_at)"
            " SELECT name, 'user', created_at FROM users"
        )
    )
    owner = OWNER
    if op.get_bind().dialect.name == "postgresql":
        owner = owner.replace("instr(", "strpos(")
    op.execute(
        sa.text(
            "INSERT INTO grants (subject, uri, action, owner, granted_at)"  # noqa: S608
            f' SELECT "user", uri, action, {owner}, users.created_at'
            ' FROM permissions JOIN users ON users.name = permissions."user"'
        )
    )
    op.drop_table("permissions")


def downgrade() -> None:
    """Undo. Of several actions on one URI the widest stays; roles' grants are lost."""
    op.create_table(
        "permissions",
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("uri", sa.String(1024), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("user", "uri", name="pk_permissions"),
        sa.ForeignKeyConstraint(
            ["user"], ["users.name"], name="fk_permissions_user", ondelete="CASCADE"
        ),
    )
    op.execute(
        sa.text(
            'INSERT INTO permissions ("user", uri, action)'
            # Of manage, read and write: the first one, or else the last.
            " SELECT subject, uri, CASE WHEN min(action) = 'manage' THEN 'manage'"
            " ELSE max(action) END"
            " FROM grants JOIN users ON users.name = grants.subject"
            " WHERE expires_at IS NULL AND length(uri) <= 1024 GROUP BY subject, uri"
        )
    )
    op.drop_table("grant_generations")
    op.drop_table("grants")
    op.drop_table("subjects")
