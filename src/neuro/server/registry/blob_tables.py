"""SQL of blobs: which repository has which, and the uploads that bring them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection, Insert, Table, bindparam, delete, func, insert, select, update

from neuro.server.access.people import is_of
from neuro.server.database.schema import upsert, upsert_of
from neuro.server.registry.names import Repository
from neuro.server.registry.tables import blobs, links, references, repositories, uploads

MAX_SOURCES = 1000  # repositories that are looked at for one whose blob may be mounted


class FoundBlob(NamedTuple):
    """A blob that a repository has; ``size`` in bytes."""

    repository_id: int
    size: int
    touched_at: datetime


class UploadRow(NamedTuple):
    """An upload that has begun: whose it is, to where, and what is made of its bytes."""

    id: str
    path: str
    person: str
    algorithm: str


_BLOB = (
    select(links.c.repository_id, blobs.c.size, links.c.touched_at)
    .join_from(repositories, links, links.c.repository_id == repositories.c.id)
    .join(blobs, blobs.c.digest == links.c.digest)
    .where(repositories.c.path == bindparam("path"), links.c.digest == bindparam("digest"))
)


@cache
def written_over(dialect: str, table: Table, *columns: str) -> Insert:
    """An INSERT that changes columns where the row is there. To make it takes 1 ms: made once."""
    insertion = upsert_of(dialect, table)
    return insertion.on_conflict_do_update(
        index_elements=[key.name for key in table.primary_key.columns],
        set_={column: insertion.excluded[column] for column in columns},
    )


def find_blob(connection: Connection, path: str, digest: str) -> FoundBlob | None:
    """A blob of a repository."""
    row = connection.execute(_BLOB, {"path": path, "digest": digest}).one_or_none()
    return None if row is None else FoundBlob(*row)


def linked_of(connection: Connection, path: str, digests: Collection[str]) -> set[str]:
    """Which of some blobs a repository has."""
    found = (
        select(links.c.digest)
        .join(repositories, links.c.repository_id == repositories.c.id)
        .where(repositories.c.path == path, links.c.digest.in_(digests))
    )
    return set(connection.execute(found).scalars())


def find_repository(connection: Connection, path: str) -> int | None:
    """The id of a repository that something was pushed to."""
    return connection.execute(
        select(repositories.c.id).where(repositories.c.path == path)
    ).scalar_one_or_none()


def make_repository(connection: Connection, repository: Repository) -> int:
    """The id of a repository, which begins with this where it is new."""
    found = find_repository(connection, repository.path)
    if found is not None:
        return found
    values = {"owner": repository.owner, "path": repository.path}
    connection.execute(upsert(connection, repositories).values(values).on_conflict_do_nothing())
    made = find_repository(connection, repository.path)
    assert made is not None
    return made


def alone_in(connection: Connection, repository_id: int) -> None:
    """Let nobody else change manifests or tags of a repository until the transaction's end."""
    mine = repositories.c.id == repository_id
    # Of a kind that does not hold up who links blobs to it.
    connection.execute(select(repositories.c.id).where(mine).with_for_update(key_share=True))


def put_blob(
    connection: Connection, repository: Repository, digest: str, size: int, now: datetime
) -> None:
    """Say that the store has a blob, and that the repository has it.

    From here to the transaction's end the blob's file is this one's to put in its place: whoever
    removes it has the same row.
    """
    values = {"digest": digest, "size": size}
    connection.execute(written_over(connection.dialect.name, blobs, "size"), values)
    link(connection, repository, digest, now)


def link(connection: Connection, repository: Repository, digest: str, now: datetime) -> None:
    """Let a repository have a blob. Raises IntegrityError for one that is not there any more."""
    repository_id = make_repository(connection, repository)
    values = {"repository_id": repository_id, "digest": digest, "touched_at": now}
    connection.execute(written_over(connection.dialect.name, links, "touched_at"), values)


def touch(connection: Connection, repository_id: int, digest: str, now: datetime) -> bool:
    """Keep a blob for a while from now on; False where the repository has it no more."""
    done = connection.execute(
        update(links)
        .where(links.c.repository_id == repository_id, links.c.digest == digest)
        .values(touched_at=now)
    )
    return done.rowcount > 0


def size_of_blob(connection: Connection, digest: str) -> int | None:
    """How many bytes a blob has, whoever has it; None where there is none."""
    size = connection.execute(select(blobs.c.size).where(blobs.c.digest == digest))
    return size.scalar_one_or_none()


def homes_of(connection: Connection, digest: str) -> list[str]:
    """The paths of repositories that have a blob; not all where there are many."""
    return list(
        connection.execute(
            select(repositories.c.path)
            .join(links, links.c.repository_id == repositories.c.id)
            .where(links.c.digest == digest)
            .limit(MAX_SOURCES)
        ).scalars()
    )


def hold(connection: Connection, repository_id: int, digest: str) -> None:
    """Wait for whoever is about to need a blob that a repository has, and let nobody else be."""
    mine = links.c.repository_id == repository_id, links.c.digest == digest
    connection.execute(select(links.c.digest).where(*mine).with_for_update())


def is_referenced(connection: Connection, repository_id: int, digest: str) -> bool:
    """Whether a manifest of the repository needs a blob."""
    return (
        connection.execute(
            select(references.c.manifest)
            .where(references.c.repository_id == repository_id, references.c.digest == digest)
            .limit(1)
        ).first()
        is not None
    )


def unlink(connection: Connection, repository_id: int, digest: str) -> None:
    """Take a blob from a repository."""
    connection.execute(
        delete(links).where(links.c.repository_id == repository_id, links.c.digest == digest)
    )


def add_upload(connection: Connection, upload: UploadRow, now: datetime) -> None:
    """Let an upload begin."""
    connection.execute(insert(uploads), {**upload._asdict(), "touched_at": now})


def get_upload(connection: Connection, upload_id: str) -> UploadRow | None:
    """An upload that has begun and not ended."""
    columns = uploads.c.id, uploads.c.path, uploads.c.person, uploads.c.algorithm
    row = connection.execute(select(*columns).where(uploads.c.id == upload_id)).one_or_none()
    return None if row is None else UploadRow(*row)


def count_uploads(connection: Connection, person: str) -> int:
    """How many uploads of somebody, and of their service accounts, have begun and not ended."""
    of_person = is_of(uploads.c.person, person)
    return connection.execute(
        select(func.count()).select_from(uploads).where(of_person)
    ).scalar_one()


def touch_upload(connection: Connection, upload_id: str, now: datetime) -> None:
    """Keep an upload for a while from now on."""
    connection.execute(update(uploads).where(uploads.c.id == upload_id).values(touched_at=now))


def remove_upload(connection: Connection, upload_id: str) -> bool:
    """End an upload; False where it has ended."""
    return connection.execute(delete(uploads).where(uploads.c.id == upload_id)).rowcount > 0


def end_uploads_of(connection: Connection, people: Collection[str]) -> None:
    """End the uploads of people who are gone; their files go with the next collection."""
    connection.execute(delete(uploads).where(uploads.c.person.in_(people)))


def end_uploads(connection: Connection, upload_ids: Sequence[str], before: datetime) -> set[str]:
    """End those of some uploads that nothing has come to since; returns the others."""
    those = uploads.c.id.in_(upload_ids)
    connection.execute(delete(uploads).where(those, uploads.c.touched_at < before))
    return set(connection.execute(select(uploads.c.id).where(those)).scalars())


def forget_uploads(connection: Connection, before: datetime) -> None:
    """Forget uploads of which there is no file: their disk was full."""
    connection.execute(delete(uploads).where(uploads.c.touched_at < before))
