"""SQL of manifests, their tags, and lists of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, bindparam, delete, exists, func, insert, select, update

from neuro.server.database.schema import upsert
from neuro.server.registry.blob_tables import written_over
from neuro.server.registry.manifests import Descriptor, Manifest
from neuro.server.registry.names import is_digest
from neuro.server.registry.tables import links, manifests, references, repositories, tags

MAX_LISTED = 4 << 20  # bytes of one answer, which is as large as manifests may be for clients


class KeptManifest(NamedTuple):
    """A manifest as it was pushed."""

    digest: str
    media_type: str
    content: bytes


_COLUMNS = manifests.c.digest, manifests.c.media_type, manifests.c.content
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


def put_manifest(
    connection: Connection,
    repository_id: int,
    manifest: Manifest,
    tagged: Iterable[str],
    now: datetime,
) -> None:
    """Add a manifest, if it is new, and let tags lead to it."""
    # Until this is committed the collection cannot take what the manifest needs: it waits here, or
    # has it and is waited for.
    connection.execute(
        select(links.c.digest)
        .where(links.c.repository_id == repository_id, links.c.digest.in_(manifest.references))
        .order_by(links.c.digest)
        .with_for_update(key_share=True, read=True)
    )
    added = connection.execute(
        upsert(connection, manifests)
        .values(
            repository_id=repository_id,
            digest=manifest.digest,
            media_type=manifest.media_type,
            content=manifest.content,
            subject=manifest.subject,
            listed=msgspec.json.encode(manifest.listed),
            artifact_type=(manifest.listed.artifact_type or "")[:255] or None,
            pushed_at=now,
        )
        .on_conflict_do_nothing()
        .returning(manifests.c.digest)
    )
    if added.first() is not None and manifest.references:
        connection.execute(
            insert(references),
            [
                {"repository_id": repository_id, "manifest": manifest.digest, "digest": digest}
                for digest in manifest.references
            ],
        )
    for tag in tagged:
        connection.execute(
            written_over(connection.dialect.name, tags, "digest"),
            {"repository_id": repository_id, "tag": tag, "digest": manifest.digest},
        )


def remove_tag(connection: Connection, repository_id: int, tag: str) -> bool:
    """Remove a tag alone; False where there is none."""
    done = connection.execute(
        delete(tags).where(tags.c.repository_id == repository_id, tags.c.tag == tag)
    )
    return done.rowcount > 0


def remove_manifest(connection: Connection, repository_id: int, digest: str, now: datetime) -> bool:
    """Remove a manifest with its tags; False where there is none.

    What it needed is kept for a while from now on: somebody may be pulling it, or have been told
    that it need not be pushed.
    """
    needed = select(references.c.digest).where(
        references.c.repository_id == repository_id, references.c.manifest == digest
    )
    given_up = links.c.repository_id == repository_id, links.c.digest.in_(needed)
    connection.execute(
        select(links.c.digest).where(*given_up).order_by(links.c.digest).with_for_update()
    )
    connection.execute(update(links).where(*given_up).values(touched_at=now))
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
    """The paths of repositories with an image; ``owners`` None for everybody's."""
    statement = select(repositories.c.path).where(
        repositories.c.path > after,
        exists().where(manifests.c.repository_id == repositories.c.id),
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
