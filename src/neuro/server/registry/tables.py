"""The registry's tables. A blob is there once, whoever pushed it.

What keeps a blob is a link, which says that a repository has it; what keeps a link is a manifest of
that repository, or that somebody pushed, mounted or gave it up a short while ago. Whoever makes a
manifest locks the links that it needs, and the collection locks those that it removes: so one of
them sees what the other has done. Rows are locked in the order of digests.

What keeps a manifest is a tag, an index that lists it, the manifest that it is about, or that it
was touched a short while ago. Whoever changes manifests or tags of a repository locks its row
first, and then the links: so changes of one repository are made one after the other.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    Table,
)

from neuro.server.database.schema import Blob, Moment, Sequence, metadata

DIGEST = 140  # characters: the longest is "sha512:" and 128 more

repositories = Table(
    "registry_repositories",
    metadata,
    Column("id", Sequence, primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("path", String(255), nullable=False, unique=True),
    Index(None, "owner", "path"),
)

blobs = Table(
    "registry_blobs",
    metadata,
    Column("digest", String(DIGEST), primary_key=True),
    Column("size", BigInteger, nullable=False),
)

links = Table(
    "registry_links",
    metadata,
    Column(
        "repository_id",
        ForeignKey("registry_repositories.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("digest", ForeignKey("registry_blobs.digest", ondelete="CASCADE"), primary_key=True),
    # When the repository last got it, or gave up a manifest with it.
    Column("touched_at", Moment, nullable=False),
    Index(None, "digest"),
    Index(None, "touched_at"),
)

manifests = Table(
    "registry_manifests",
    metadata,
    Column(
        "repository_id",
        ForeignKey("registry_repositories.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("digest", String(DIGEST), primary_key=True),
    Column("media_type", String(255), nullable=False),
    Column("content", Blob, nullable=False),
    # What it is about, and how it is listed there.
    Column("subject", String(DIGEST), nullable=True),
    Column("listed", Blob, nullable=False),
    Column("artifact_type", String(255), nullable=True),
    # Bytes: of the blobs that it names and the repository had when it was last pushed, and of the
    # manifests in an index, as their rows said then. What two of those have is in both. Of what a
    # mirror has: of all blobs by the manifest's own word, and of the manifests that have come.
    Column("size", BigInteger, nullable=False),
    Column("pushed_at", Moment, nullable=False),
    # When it was last pushed or asked for, or gave up a tag, an index or a subject.
    Column("touched_at", Moment, nullable=False),
    Column("pulled_at", Moment, nullable=True),
    Index(None, "repository_id", "subject", "digest"),
    Index(None, "touched_at"),
)

references = Table(
    "registry_references",
    metadata,
    Column("repository_id", Sequence, primary_key=True, autoincrement=False),
    Column("manifest", String(DIGEST), primary_key=True),
    Column("digest", String(DIGEST), primary_key=True),
    ForeignKeyConstraint(
        ["repository_id", "manifest"],
        ["registry_manifests.repository_id", "registry_manifests.digest"],
        ondelete="CASCADE",
    ),
    Index(None, "repository_id", "digest"),
)

tags = Table(
    "registry_tags",
    metadata,
    Column("repository_id", Sequence, primary_key=True, autoincrement=False),
    Column("tag", String(128), primary_key=True),
    Column("digest", String(DIGEST), nullable=False),
    Column("set_at", Moment, nullable=False),
    ForeignKeyConstraint(
        ["repository_id", "digest"],
        ["registry_manifests.repository_id", "registry_manifests.digest"],
        ondelete="CASCADE",
    ),
    Index(None, "repository_id", "digest"),
)

uploads = Table(
    "registry_uploads",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("path", String(255), nullable=False),
    Column("person", String(255), nullable=False),
    Column("algorithm", String(16), nullable=False),
    Column("touched_at", Moment, nullable=False),
    Index(None, "person"),
    Index(None, "touched_at"),
)

# Of an owner, or of one of their repositories: which tags stay.
rules = Table(
    "registry_rules",
    metadata,
    Column("path", String(255), primary_key=True),
    Column("rules", Blob, nullable=False),
)

quotas = Table(
    "registry_quotas",
    metadata,
    Column("owner", String(255), primary_key=True),
    Column("size", BigInteger, nullable=False),
)
