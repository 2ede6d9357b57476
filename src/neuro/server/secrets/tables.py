"""The table of secrets: a row for each version, whose value only the key file decrypts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Index,
    Integer,
    Row,
    Select,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    text,
    tuple_,
    update,
)

from neuro.server.access.people import is_of
from neuro.server.database.schema import Blob, Moment, metadata
from neuro.server.secrets.sealing import SecretPlace

secrets = Table(
    "secrets",
    metadata,
    Column("owner", String(255), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("key_id", String(64), nullable=False),
    Column("sealed", Blob, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("created_by", String(255), nullable=False),
    Index("ix_secrets_key_id", "key_id"),
)


class Sealed(NamedTuple):
    """An encrypted value; ``key_id`` says with which key."""

    place: SecretPlace
    key_id: str
    content: bytes


class About(NamedTuple):
    """What is known of a version without its value."""

    place: SecretPlace
    created_at: datetime
    created_by: str


def lock(connection: Connection) -> None:
    """Let nobody else change secrets until the transaction is over; SQLite has one writer.

    So no two give out one version, or make the first key at once.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(text("LOCK TABLE secrets IN SHARE ROW EXCLUSIVE MODE"))


def key_ids(connection: Connection) -> list[str]:
    """The ids of all keys that something is encrypted with."""
    return list(connection.execute(select(secrets.c.key_id).distinct()).scalars())


def newest(connection: Connection, owner: str, key: str) -> Sealed | None:
    """The newest version of a secret."""
    return _one(connection, _newest_of(owner, key))


def present(connection: Connection, places: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these secrets there are, each an owner and a key; no value is read."""
    c = secrets.c
    found = select(c.owner, c.key).where(tuple_(c.owner, c.key).in_(sorted(places))).distinct()
    return {(row.owner, row.key) for row in connection.execute(found)}


def of_version(connection: Connection, place: SecretPlace) -> Sealed | None:
    """One version of a secret."""
    return _one(connection, select(secrets).where(_is(place)))


def add(connection: Connection, sealed: Sealed, created_at: datetime, created_by: str) -> None:
    """Add a version."""
    owner, key, version = sealed.place
    connection.execute(
        insert(secrets).values(
            owner=owner,
            key=key,
            version=version,
            key_id=sealed.key_id,
            sealed=sealed.content,
            created_at=created_at,
            created_by=created_by,
        )
    )


def drop_before(connection: Connection, owner: str, key: str, version: int) -> None:
    """Forget the versions of a secret before this one."""
    connection.execute(
        delete(secrets).where(
            secrets.c.owner == owner, secrets.c.key == key, secrets.c.version < version
        )
    )


def drop(connection: Connection, owner: str, key: str) -> bool:
    """Forget a secret with all its versions; whether there was one."""
    gone = delete(secrets).where(secrets.c.owner == owner, secrets.c.key == key)
    return connection.execute(gone).rowcount > 0


def drop_all_of(connection: Connection, owners: Collection[str]) -> None:
    """Forget all secrets of these people."""
    connection.execute(delete(secrets).where(secrets.c.owner.in_(sorted(owners))))


def count_of(connection: Connection, person: str) -> int:
    """How many secrets a person has, those of their service accounts included."""
    theirs = select(secrets.c.owner, secrets.c.key).where(is_of(secrets.c.owner, person))
    distinct = theirs.distinct().subquery()
    return connection.execute(select(func.count()).select_from(distinct)).scalar_one()


def listed(connection: Connection, owners: Collection[str] | None, limit: int) -> list[About]:
    """The newest version of each secret, of these owners or of everybody, by owner and key."""
    top = (
        select(secrets.c.owner, secrets.c.key, func.max(secrets.c.version).label("version"))
        .group_by(secrets.c.owner, secrets.c.key)
        .order_by(secrets.c.owner, secrets.c.key)
        .limit(limit)
    )
    if owners is not None:
        top = top.where(secrets.c.owner.in_(sorted(owners)))
    found = top.subquery()
    rows = connection.execute(
        _abouts()
        .join(
            found,
            (secrets.c.owner == found.c.owner)
            & (secrets.c.key == found.c.key)
            & (secrets.c.version == found.c.version),
        )
        .order_by(secrets.c.owner, secrets.c.key)
    )
    return [_about(row) for row in rows]


def versions_of(connection: Connection, owner: str, key: str) -> list[About]:
    """The versions of a secret that are kept, newest first."""
    rows = connection.execute(
        _abouts()
        .where(secrets.c.owner == owner, secrets.c.key == key)
        .order_by(secrets.c.version.desc())
    )
    return [_about(row) for row in rows]


def not_of_key(connection: Connection, key_id: str, after: SecretPlace, limit: int) -> list[Sealed]:
    """Values that another key encrypted, in the order of their places."""
    columns = tuple_(secrets.c.owner, secrets.c.key, secrets.c.version)
    rows = connection.execute(
        select(secrets)
        .where(secrets.c.key_id != key_id, columns > tuple_(*after))
        .order_by(secrets.c.owner, secrets.c.key, secrets.c.version)
        .limit(limit)
    )
    return [_sealed(row) for row in rows]


def put_in_place(connection: Connection, again: Sequence[Sealed]) -> None:
    """Keep these values in place of what their versions had."""
    for one in again:
        connection.execute(
            update(secrets).where(_is(one.place)).values(key_id=one.key_id, sealed=one.content)
        )


def _newest_of(owner: str, key: str) -> Select[Any]:
    return (
        select(secrets)
        .where(secrets.c.owner == owner, secrets.c.key == key)
        .order_by(secrets.c.version.desc())
        .limit(1)
    )


def _abouts() -> Select[Any]:
    c = secrets.c
    return select(c.owner, c.key, c.version, c.created_at, c.created_by)


def _is(place: SecretPlace) -> ColumnElement[bool]:
    c = secrets.c
    return (c.owner == place.owner) & (c.key == place.key) & (c.version == place.version)


def _one(connection: Connection, query: Select[Any]) -> Sealed | None:
    row = connection.execute(query).one_or_none()
    return None if row is None else _sealed(row)


def _sealed(row: Row[Any]) -> Sealed:
    return Sealed(SecretPlace(row.owner, row.key, row.version), row.key_id, row.sealed)


def _about(row: Row[Any]) -> About:
    return About(SecretPlace(row.owner, row.key, row.version), row.created_at, row.created_by)
