"""Tables of who can be given something, and of what they were given."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
)

from neuro.domain.permissions import PUBLIC, Action
from neuro.domain.uris import ResourceURI, typed_text
from neuro.server.access.grants import Grant, role_of
from neuro.server.database.schema import Moment, metadata, upsert

# Of bytes, as an index of PostgreSQL holds no more.
MAX_URI_BYTES = 1500
MAX_OWNER = 255

# Users, service accounts, roles, and ``public``.
subjects = Table(
    "subjects",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("kind", String(16), nullable=False),
    # Whose a role is.
    Column("owner", String(64), nullable=True),
    Column("created_at", Moment, nullable=False),
    Index(None, "owner"),
)

grants = Table(
    "grants",
    metadata,
    Column("subject", ForeignKey("subjects.name", ondelete="CASCADE"), primary_key=True),
    Column("uri", String(MAX_URI_BYTES), primary_key=True),
    # Each action has its own end: somebody who may always read can write for a week.
    Column("action", String(16), primary_key=True),
    # Whose the thing is; nobody's where the URI is of all of a scheme's things.
    Column("owner", String(MAX_OWNER), nullable=False),
    Column("granted_by", String(64), nullable=True),
    Column("granted_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=True),
    Index(None, "owner"),
    Index(None, "granted_by"),
    Index(None, "expires_at"),
    # What one subject was given stands together.
    sqlite_with_rowid=False,
)

# One row: how many times grants have changed, written with each change.
generations = Table(
    "grant_generations",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)

_ACTIONS = {action.value: action for action in Action}
USER, ROLE, PUBLIC_KIND, SERVICE = "user", "role", "public", "service"


def changed(connection: Connection) -> None:
    """Say that grants change in this transaction. It waits for others that change them."""
    connection.execute(
        upsert(connection, generations)
        .values(id=1, number=1)
        .on_conflict_do_update(index_elements=["id"], set_={"number": generations.c.number + 1})
    )


# Statements are made once: to build one takes longer than to run it.
_GENERATION = select(generations.c.number)


def generation(connection: Connection) -> int:
    """How many times grants have changed."""
    return connection.execute(_GENERATION).scalar() or 0


def add_subject(
    connection: Connection, name: str, kind: str, at: datetime, owner: str | None = None
) -> None:
    """Raises IntegrityError for a name that is taken."""
    row = {"name": name, "kind": kind, "owner": owner, "created_at": at}
    connection.execute(insert(subjects), row)


def add_everybody(connection: Connection, at: datetime) -> None:
    """Have ``public`` be there."""
    if kind_of(connection, PUBLIC) is None:
        add_subject(connection, PUBLIC, PUBLIC_KIND, at)


def kind_of(connection: Connection, name: str) -> str | None:
    """What a subject is; None where there is none of that name."""
    statement = select(subjects.c.kind).where(subjects.c.name == name)
    return connection.execute(statement).scalar_one_or_none()


def remove_subject(connection: Connection, name: str) -> None:
    """Remove a subject with all that it was given. A role's members lose it."""
    connection.execute(delete(grants).where(grants.c.uri == f"role://{name}"))
    connection.execute(delete(subjects).where(subjects.c.name == name))


def roles_of_owner(connection: Connection, owner: str) -> list[str]:
    """The names of somebody's roles."""
    statement = select(subjects.c.name).where(subjects.c.owner == owner, subjects.c.kind == ROLE)
    return sorted(connection.execute(statement).scalars())


def add_grants(connection: Connection, subject: str, given: Iterable[Grant], at: datetime) -> None:
    """Give a subject what it does not have yet."""
    rows = [
        {
            "subject": subject,
            "uri": typed_text(grant.uri),
            "action": grant.action.value,
            "owner": owner_of(grant.uri),
            "granted_by": grant.by,
            "granted_at": at,
            "expires_at": grant.until,
        }
        for grant in given
    ]
    if rows:
        connection.execute(insert(grants), rows)


def drop_grants(
    connection: Connection, subject: str, uri: ResourceURI, action: Action | None = None
) -> int:
    """Take from a subject what it was given on exactly this URI; returns how many grants."""
    statement = delete(grants).where(grants.c.subject == subject, grants.c.uri == typed_text(uri))
    if action is not None:
        statement = statement.where(grants.c.action == action.value)
    return connection.execute(statement).rowcount


def drop_shares_of(connection: Connection, owner: str) -> set[str]:
    """Take what is an owner's from everybody who holds any of it; returns who that is."""
    of_owner = grants.c.owner == owner
    subjects = set(connection.execute(select(grants.c.subject).where(of_owner)).scalars())
    connection.execute(delete(grants).where(of_owner))
    return subjects


def drop_expired(connection: Connection, before: datetime) -> int:
    """Forget grants that ended before a moment; returns how many."""
    return connection.execute(delete(grants).where(grants.c.expires_at < before)).rowcount


_FIELDS = (grants.c.uri, grants.c.action, grants.c.expires_at, grants.c.granted_by)
_OF_SUBJECTS = select(grants.c.subject, *_FIELDS).where(
    grants.c.subject.in_(bindparam("names", expanding=True))
)
_OF_SUBJECT_AND_PUBLIC = select(grants.c.subject, *_FIELDS, _GENERATION.scalar_subquery()).where(
    grants.c.subject.in_((bindparam("name"), PUBLIC))
)


def reachable(connection: Connection, subject: str) -> dict[str, list[Grant]]:
    """The grants of a subject, of everybody, and of all roles that they may be in."""
    found, _ = reachable_at(connection, subject)
    return found


def reachable_at(connection: Connection, subject: str) -> tuple[dict[str, list[Grant]], int]:
    """The same, and the generation in which they were: one statement where there is no role."""
    rows = connection.execute(_OF_SUBJECT_AND_PUBLIC, {"name": subject}).all()
    number = rows[0][-1] if rows else generation(connection)
    found: dict[str, list[Grant]] = {subject: [], PUBLIC: []}
    roles = _add(found, rows)
    while roles:
        found |= {name: [] for name in roles}
        roles = _add(found, connection.execute(_OF_SUBJECTS, {"names": sorted(roles)}))
    return found, number or 0


def _add(found: dict[str, list[Grant]], rows: Iterable[Any]) -> set[str]:
    """Add grants to those of their subjects; returns roles whose grants are to be read too."""
    roles: set[str] = set()
    for name, uri, action, until, by, *_ in rows:
        grant = _grant(uri, action, until, by)
        found[name].append(grant)
        if grant.uri.scheme == "role":
            role = role_of(grant.uri)
            if role is not None and role not in found:
                roles.add(role)
    return roles


def count_of(connection: Connection, subject: str, giver: str | None = None) -> int:
    """How many grants a subject has, all together or by one person."""
    statement = select(func.count()).where(grants.c.subject == subject)
    if giver is not None:
        statement = statement.where(grants.c.granted_by == giver)
    return connection.execute(statement).scalar_one()


def count_to_roles(connection: Connection, giver: str) -> int:
    """How many grants one person has given to roles: of all subjects only these have a slash."""
    statement = select(func.count()).where(
        grants.c.granted_by == giver, grants.c.subject.contains("/")
    )
    return connection.execute(statement).scalar_one()


def of_subject(connection: Connection, subject: str) -> list[Grant]:
    """What was given to a subject itself."""
    rows = connection.execute(_OF_SUBJECTS, {"names": [subject]})
    return [_grant(*row) for _, *row in rows]


def given_on(connection: Connection, subject: str, uri: ResourceURI) -> list[Grant]:
    """What a subject itself has on exactly this URI."""
    statement = select(*_FIELDS).where(grants.c.subject == subject, grants.c.uri == typed_text(uri))
    return [_grant(*row) for row in connection.execute(statement)]


def from_the_start(connection: Connection, subject: str) -> list[Grant]:
    """What comes with being who they are."""
    statement = select(*_FIELDS).where(grants.c.subject == subject, grants.c.granted_by.is_(None))
    return [_grant(*row) for row in connection.execute(statement)]


def shared_by(
    connection: Connection, owner: str, top: str, now: datetime, limit: int
) -> list[tuple[str, Grant]]:
    """(subject, grant) of what others were given by somebody, or of what is theirs.

    ``top`` is a URI, for what is on it and below it; a scheme (``storage://``); or empty.
    """
    below = top if not top or top.endswith("://") else f"{top}/"
    statement = (
        select(grants.c.subject, *_FIELDS)
        .where(or_(grants.c.owner == owner, grants.c.granted_by == owner))
        .where(grants.c.subject != owner, grants.c.granted_by.is_not(None))
        .where(or_(grants.c.expires_at.is_(None), grants.c.expires_at > now))
        .where(or_(grants.c.uri == top, func.substr(grants.c.uri, 1, len(below)) == below))
        .order_by(grants.c.uri, grants.c.subject)
        .limit(limit)
    )
    return [(name, _grant(*row)) for name, *row in connection.execute(statement)]


def owner_of(uri: ResourceURI) -> str:
    """Whose a thing is, by its URI; empty where it is all of a cluster's."""
    if uri.scheme in ("role", "user"):
        return uri.host
    return uri.segments[0] if uri.segments and uri.scheme != "cluster" else ""


def _grant(uri: str, action: str, until: datetime | None, by: str | None) -> Grant:
    return Grant(stored_uri(uri), _ACTIONS[action], until, by)


def stored_uri(text: str) -> ResourceURI:
    """The URI of what ``typed_text`` wrote: a caller's grants are read while they wait."""
    scheme, _, rest = text.partition("://")
    host, *segments = rest.split("/")
    if "%" in rest:
        segments = [unquote(segment) for segment in segments]
    return ResourceURI(scheme, host, tuple(segments))
