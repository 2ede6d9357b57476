"""The registry of images: repositories, blobs, manifests, tags, uploads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "registry_repositories",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("path", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_registry_repositories"),
        sa.UniqueConstraint("path", name="uq_registry_repositories_path"),
    )
    op.create_index(
        "ix_registry_repositories_owner_path", "registry_repositories", ["owner", "path"]
    )
    op.create_table(
        "registry_blobs",
        sa.Column("digest", sa.String(140), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_registry_blobs"),
    )
    op.create_table(
        "registry_links",
        sa.Column("repository_id", _NUMBER, nullable=False),
        sa.Column("digest", sa.String(140), nullable=False),
        sa.Column("touched_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "digest", name="pk_registry_links"),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["registry_repositories.id"],
            name="fk_registry_links_repository_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["digest"],
            ["registry_blobs.digest"],
            name="fk_registry_links_digest",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_registry_links_digest", "registry_links", ["digest"])
    op.create_index("ix_registry_links_touched_at", "registry_links", ["touched_at"])
    op.create_table(
        "registry_manifests",
        sa.Column("repository_id", _NUMBER, nullable=False),
        sa.Column("digest", sa.String(140), nullable=False),
        sa.Column("media_type", sa.String(255), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("subject", sa.String(140), nullable=True),
        sa.Column("listed", sa.LargeBinary(), nullable=False),
        sa.Column("artifact_type", sa.String(255), nullable=True),
        sa.Column("pushed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "digest", name="pk_registry_manifests"),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["registry_repositories.id"],
            name="fk_registry_manifests_repository_id",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "ix_registry_manifests_repository_id_subject_digest",
        "registry_manifests",
        ["repository_id", "subject", "digest"],
    )
    op.create_table(
        "registry_references",
        sa.Column("repository_id", _NUMBER, nullable=False),
        sa.Column("manifest", sa.String(140), nullable=False),
        sa.Column("digest", sa.String(140), nullable=False),
        sa.PrimaryKeyConstraint(
            "repository_id", "manifest", "digest", name="pk_registry_references"
        ),
        sa.ForeignKeyConstraint(
            ["repository_id", "manifest"],
            ["registry_manifests.repository_id", "registry_manifests.digest"],
            name="fk_registry_references_repository_id_manifest",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "ix_registry_references_repository_id_digest",
        "registry_references",
        ["repository_id", "digest"],
    )
    op.create_table(
        "registry_tags",
        sa.Column("repository_id", _NUMBER, nullable=False),
        sa.Column("tag", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(140), nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "tag", name="pk_registry_tags"),
        sa.ForeignKeyConstraint(
            ["repository_id", "digest"],
            ["registry_manifests.repository_id", "registry_manifests.digest"],
            name="fk_registry_tags_repository_id_digest",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "ix_registry_tags_repository_id_digest", "registry_tags", ["repository_id", "digest"]
    )
    op.create_table(
        "registry_uploads",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("path", sa.String(255), nullable=False),
        sa.Column("person", sa.String(255), nullable=False),
        sa.Column("algorithm", sa.String(16), nullable=False),
        sa.Column("touched_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_registry_uploads"),
    )
    op.create_index("ix_registry_uploads_person", "registry_uploads", ["person"])
    op.create_index("ix_registry_uploads_touched_at", "registry_uploads", ["touched_at"])


def downgrade() -> None:
    """Undo."""
    for table in ("uploads", "tags", "references", "manifests", "links", "blobs", "repositories"):
        op.drop_table(f"registry_{table}")
