"""How large images are, which was summed up for each who asked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_INDEXES = (
    "('application/vnd.oci.image.index.v1+json',"
    " 'application/vnd.docker.distribution.manifest.list.v2+json')"
)
# Each reference is looked at once. An index in an index counts nothing here, as it did before.
_OF_BLOBS = """
    UPDATE registry_manifests SET size = COALESCE((
        SELECT SUM(b.size) FROM registry_references r
        JOIN registry_links l ON l.repository_id = r.repository_id AND l.digest = r.digest
        JOIN registry_blobs b ON b.digest = r.digest
        WHERE r.repository_id = registry_manifests.repository_id
        AND r.manifest = registry_manifests.digest
    ), 0)
"""
_OF_PARTS = f"""
    UPDATE registry_manifests SET size = size + COALESCE((
        SELECT SUM(part.size) FROM registry_references r
        JOIN registry_manifests part
        ON part.repository_id = r.repository_id AND part.digest = r.digest
        WHERE r.repository_id = registry_manifests.repository_id
        AND r.manifest = registry_manifests.digest AND part.media_type NOT IN {_INDEXES}
    ), 0) WHERE media_type IN {_INDEXES}
"""  # noqa: S608


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "registry_manifests",
        sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.execute(_OF_BLOBS)
    op.execute(_OF_PARTS)


def downgrade() -> None:
    """Undo."""
    op.drop_column("registry_manifests", "size")
