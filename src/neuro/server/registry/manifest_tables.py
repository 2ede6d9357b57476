"""SQL of manifests, their tags, and lists of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, Select, bindparam, delete, exists, func, select, update

from neuro.server.database.schema import upsert
from neuro.server.registry import blob_tables
from neuro.server.registry.blob_tables import written_over
from neuro.server.registry.manifests import Descriptor, Manifest
from neuro.server.registry.names import is_digest
from neuro.server.registry.tables import blobs, links, manifests, references, repositories, tags

MAX_LISTED = 4 << 20  # bytes of one answer, which is as large as manifests may be for clients
MAX_MEASURED = 100  # indexes that are looked at again when a part of them comes
MAX_SIZE = (1 << 63) - 1  # bytes: what a column can have


class KeptManifest(NamedTuple):
    """A manifest as it was pushed; ``pulled_at`` to the hour."""

    repository_id: int
    digest: str
    media_type: str
    content: bytes
    touched_at: datetime
    pulled_at: datetime | None


_COLUMNS = (
    manifests.c.repository_id,
    manifests.c.digest,
    manifests.c.media_type,
    manifests.c.content,
    manifests.c.touched_at,
    manifests.c.pulled_at,
)
_BY_DIGEST = (
    select(*_COLUMNS)
    .join_from(repositories, manifests, manifests.c.repository_id == repositories.c.id)
    .where(repositories.c.path == bindparam("path"), manifests.c.digest == bindparam("reference"))
)
_BY_TAG = (
    select(*_COLUMNS)
    .join_from(repositories, tags, tags.c.repository_id == repositories.c.id)
    .join(
        manifests,
        (manifests.c.repository_id == tags.c.repository_id) & (manifests.c.digest == tags.c.digest),
    )
    .where(repositories.c.path == bindparam("path"), tags.c.tag == bindparam("reference"))
)


def find_manifest(connection: Connection, path: str, reference: str) -> KeptManifest | None:
    """A manifest by a tag or its digest."""
    statement = _BY_DIGEST if is_digest(reference) else _BY_TAG
    row = connection.execute(statement, {"path": path, "reference": reference}).one_or_none()
    return None if row is None else KeptManifest(*row)


def find_naming(connection: Connection, path: str, digest: str) -> bytes | None:
    """The content of a manifest of a repository that names a digest."""
    return connection.execute(
        select(manifests.c.content)
        .join_from(repositories, references, references.c.repository_id == repositories.c.id)
        .join(
            manifests,
            (manifests.c.repository_id == references.c.repository_id)
            & (manifests.c.digest == references.c.manifest),
        )
        .where(repositories.c.path == path, references.c.digest == digest)
        .limit(1)
    ).scalar_one_or_none()


def put_manifest(
    connection: Connection,
    repository_id: int,
    manifest: Manifest,
    tagged: Iterable[str],
    now: datetime,
    size: int | None = None,
) -> Collection[str]:
    """Add a manifest, if it is new, and let tags lead to it.

    Its ``size`` in bytes is what is there now, unless another one is given. Returns which of the
    blobs that it names the repository has, and keeps from now on.
    """
    blob_tables.alone_in(connection, repository_id)
    # Until this is committed the collection cannot take what the manifest needs: it waits here, or
    # has it and is waited for.
    kept = connection.execute(
        select(links.c.digest)
        .where(links.c.repository_id == repository_id, links.c.digest.in_(manifest.references))
        .order_by(links.c.digest)
        .with_for_update(key_share=True, read=True)
    )
    linked = frozenset(kept.scalars())
    if size is None:
        size = _size_of(connection, repository_id, manifest.references)
    insertion = upsert(connection, manifests)
    connection.execute(
        insertion.values(
            repository_id=repository_id,
            digest=manifest.digest,
            media_type=manifest.media_type,
            content=manifest.content,
            subject=manifest.subject,
            listed=msgspec.json.encode(manifest.listed),
            artifact_type=(manifest.listed.artifact_type or "")[:255] or None,
            size=min(size, MAX_SIZE),
            pushed_at=now,
            touched_at=now,
        ).on_conflict_do_update(
            index_elements=["repository_id", "digest"],
            set_={key: insertion.excluded[key] for key in ("touched_at", "size")},
        )
    )
    if manifest.references:
        connection.execute(
            upsert(connection, references).on_conflict_do_nothing(),
            [
                {"repository_id": repository_id, "manifest": manifest.digest, "digest": digest}
                for digest in manifest.references
            ],
        )
    tagged = list(tagged)
    mine = tags.c.repository_id == repository_id, tags.c.tag.in_(tagged)
    _touch_those(connection, repository_id, select(tags.c.digest).where(*mine), now)
    for tag in tagged:
        connection.execute(
            written_over(connection.dialect.name, tags, "digest", "set_at"),
            {"repository_id": repository_id, "tag": tag, "digest": manifest.digest, "set_at": now},
        )
    return linked


def measure_indexes(connection: Connection, repository_id: int, part: str) -> None:
    """Look again how large the indexes are that list a manifest which has come after them."""
    listing = (
        select(references.c.manifest)
        .where(references.c.repository_id == repository_id, references.c.digest == part)
        .limit(MAX_MEASURED)
    )
    for index in connection.execute(listing).scalars().all():
        needed = select(references.c.digest).where(
            references.c.repository_id == repository_id, references.c.manifest == index
        )
        size = _size_of(connection, repository_id, connection.execute(needed).scalars().all())
        mine = manifests.c.repository_id == repository_id, manifests.c.digest == index
        connection.execute(update(manifests).where(*mine).values(size=size))


def _size_of(connection: Connection, repository_id: int, digests: Sequence[str]) -> int:
    """How many bytes a manifest has that names ``digests``: see ``tables``.

    It takes a look at each and no more, as what a manifest in an index has is in its row.
    """
    blobs_of = (
        select(blobs.c.size)
        .join(links, links.c.digest == blobs.c.digest)
        .where(links.c.repository_id == repository_id, links.c.digest.in_(digests))
    )
    parts = select(manifests.c.size).where(
        manifests.c.repository_id == repository_id, manifests.c.digest.in_(digests)
    )
    # Indexes in indexes may come to any number, which is no column's and no database's any more.
    size = 0
    for found in (blobs_of, parts):
        size += sum(connection.execute(found).scalars())
    return min(size, MAX_SIZE)


def _touch_those(
    connection: Connection, repository_id: int, digests: Select[tuple[str]], now: datetime
) -> None:
    """Keep manifests for a while that something stops to need."""
    those = manifests.c.repository_id == repository_id, manifests.c.digest.in_(digests)
    connection.execute(update(manifests).where(*those).values(touched_at=now))


def touch(
    connection: Connection, repository_id: int, digest: str, now: datetime, *, pulled: bool
) -> bool:
    """Keep a manifest for a while from now on; False where it is there no more."""
    moments = {"touched_at": now} | ({"pulled_at": now} if pulled else {})
    mine = manifests.c.repository_id == repository_id, manifests.c.digest == digest
    return connection.execute(update(manifests).where(*mine).values(moments)).rowcount > 0


def remove_tags(
    connection: Connection, repository_id: int, names: Sequence[str], now: datetime
) -> int:
    """Remove tags alone; returns how many there were.

    An image that none leads to any more is kept for a while from now on.
    """
    blob_tables.alone_in(connection, repository_id)
    mine = tags.c.repository_id == repository_id, tags.c.tag.in_(names)
    _touch_those(connection, repository_id, select(tags.c.digest).where(*mine), now)
    return connection.execute(delete(tags).where(*mine)).rowcount


def remove_manifest(connection: Connection, repository_id: int, digest: str, now: datetime) -> bool:
    """Remove a manifest with its tags; False where there is none.

    What it needed, and what is about it, is kept for a while from now on: somebody may be pulling
    it, or have been told that it need not be pushed.
    """
    blob_tables.alone_in(connection, repository_id)
    needed = select(references.c.digest).where(
        references.c.repository_id == repository_id, references.c.manifest == digest
    )
    given_up = links.c.repository_id == repository_id, links.c.digest.in_(needed)
    connection.execute(
        select(links.c.digest).where(*given_up).order_by(links.c.digest).with_for_update()
    )
    connection.execute(update(links).where(*given_up).values(touched_at=now))
    about = select(manifests.c.digest).where(
        manifests.c.repository_id == repository_id, manifests.c.subject == digest
    )
    _touch_those(connection, repository_id, needed, now)
    _touch_those(connection, repository_id, about, now)
    done = connection.execute(
        delete(manifests).where(
            manifests.c.repository_id == repository_id, manifests.c.digest == digest
        )
    )
    return done.rowcount > 0


def list_tags(connection: Connection, repository_id: int, after: str, limit: int) -> list[str]:
    """Tags behind ``after``, by name."""
    return list(
        connection.execute(
            select(tags.c.tag)
            .where(tags.c.repository_id == repository_id, tags.c.tag > after)
            .order_by(tags.c.tag)
            .limit(limit)
        ).scalars()
    )


def list_repositories(
    connection: Connection, owners: Iterable[str] | None, after: str, limit: int
) -> list[str]:
    """The paths of repositories with a tag; ``owners`` None for everybody's.

    What else may be in one goes soon.
    """
    statement = select(repositories.c.path).where(
        repositories.c.path > after,
        exists().where(tags.c.repository_id == repositories.c.id),
    )
    if owners is not None:
        statement = statement.where(repositories.c.owner.in_(sorted(owners)))
    return list(connection.execute(statement.order_by(repositories.c.path).limit(limit)).scalars())


def list_referrers(
    connection: Connection,
    path: str,
    subject: str,
    artifact_type: str | None,
    after: str,
    limit: int,
) -> tuple[list[Descriptor], bool]:
    """What is about a digest, by its own digests: ``limit`` of it and MAX_LISTED bytes at most.

    With it comes whether there is more.
    """
    statement = (
        select(manifests.c.repository_id, manifests.c.digest, func.length(manifests.c.listed))
        .join_from(repositories, manifests, manifests.c.repository_id == repositories.c.id)
        .where(
            repositories.c.path == path,
            manifests.c.subject == subject,
            manifests.c.digest > after,
        )
        .order_by(manifests.c.digest)
        .limit(limit + 1)
    )
    if artifact_type is not None:
        statement = statement.where(manifests.c.artifact_type == artifact_type)
    found = connection.execute(statement).all()
    sizes = list(accumulate(size for _, _, size in found))
    # One at least, or a list would never go on. Each may be as large as a manifest, and all of
    # them are in memory.
    count = min(limit, max(1, bisect_right(sizes, MAX_LISTED)))
    if not found:
        return [], False
    of_page = select(manifests.c.listed).where(
        manifests.c.repository_id == found[0].repository_id,
        manifests.c.digest.in_([digest for _, digest, _ in found[:count]]),
    )
    decode = msgspec.json.Decoder(Descriptor).decode
    page = connection.execute(of_page.order_by(manifests.c.digest)).scalars()
    return [decode(listed) for listed in page], len(found) > count
