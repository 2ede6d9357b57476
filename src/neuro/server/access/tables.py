"""Tables of users, their service accounts and their tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    and_,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Row

from neuro.domain.permissions import Permission
from neuro.domain.service_accounts import ServiceAccount
from neuro.domain.users import Token, User
from neuro.server.access import grant_tables
from neuro.server.access.grants import Grant
from neuro.server.database.schema import Moment, metadata

IDS_AT_ONCE = 500

users = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
)

# The users that are programs, and whose they are.
service_accounts = Table(
    "service_accounts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("user", ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
    # Who goes takes their accounts along: without that they cannot go.
    Column("owner", ForeignKey("users.name"), nullable=False),
    Column("name", String(64), nullable=True),
    Column("default_cluster", String(255), nullable=False),
    Column("default_project", String(255), nullable=False),
    Column("default_org", String(255), nullable=True),
    Column("created_at", Moment, nullable=False),
    Index(None, "user", unique=True),
    Index(None, "owner"),
)

# Jobs and files of who was removed stay: nobody else may come to own them by the name.
retired_users = Table(
    "retired_users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("retired_at", Moment, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("user", ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
    # Only a digest is kept: the database's reader cannot act as its users.
    Column("digest", String(64), nullable=False),
    Column("label", String(256), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("revoked_at", Moment, nullable=True),
    # The job that it was given to, with which it ends; none for people's own.
    Column("job", String(64), nullable=True),
    Index(None, "user"),
    Index(None, "job"),
)


def get_user(connection: Connection, name: str) -> User | None:
    row = connection.execute(select(users).where(users.c.name == name)).one_or_none()
    return None if row is None else _user(row)


def hold_user(connection: Connection, name: str) -> User | None:
    """The same; until the transaction ends nobody else removes them."""
    row = connection.execute(select(users).where(users.c.name == name).with_for_update())
    return None if (found := row.one_or_none()) is None else _user(found)


def list_users(connection: Connection, *, after: str = "", limit: int = 1000) -> list[User]:
    """Of people alone."""
    is_person = users.c.name.not_in(select(service_accounts.c.user))
    statement = select(users).where(users.c.name > after, is_person)
    rows = connection.execute(statement.order_by(users.c.name).limit(limit))
    return [_user(row) for row in rows]


def add_user(connection: Connection, user: User, permissions: list[Permission]) -> None:
    """Add a user, with what comes with being one."""
    _add_user(connection, user, permissions, grant_tables.USER)


def _add_user(connection: Connection, user: User, permissions: list[Permission], kind: str) -> None:
    grant_tables.add_subject(connection, user.name, kind, user.created_at)
    connection.execute(
        insert(users).values(name=user.name, is_admin=user.is_admin, created_at=user.created_at)
    )
    given = [Grant(permission.uri, permission.action) for permission in permissions]
    grant_tables.add_grants(connection, user.name, given, user.created_at)


def add_service_account(
    connection: Connection,
    account: ServiceAccount,
    own: list[Permission],
    owners: list[Permission],
) -> None:
    """Add an account, with what it has from the start, and what its owner has because of it."""
    user = User(name=account.role, is_admin=False, created_at=account.created_at)
    _add_user(connection, user, own, grant_tables.SERVICE)
    connection.execute(
        insert(service_accounts).values(
            id=account.id,
            user=account.role,
            owner=account.owner,
            name=account.name,
            default_cluster=account.default_cluster,
            default_project=account.default_project,
            default_org=account.default_org,
            created_at=account.created_at,
        )
    )
    for permission in owners:  # An administrator may have granted it, of an account before.
        grant_tables.drop_grants(connection, account.owner, permission.uri, permission.action)
    given = [Grant(permission.uri, permission.action) for permission in owners]
    grant_tables.add_grants(connection, account.owner, given, account.created_at)


def service_accounts_of(connection: Connection, owner: str) -> list[ServiceAccount]:
    """Somebody's accounts, oldest first."""
    columns = service_accounts.c
    statement = select(service_accounts).where(columns.owner == owner)
    rows = connection.execute(statement.order_by(columns.created_at, columns.id))
    return [_account(row) for row in rows]


def find_service_account(connection: Connection, owner: str, account: str) -> ServiceAccount | None:
    """The account with this id, or the owner's of this name."""
    columns = service_accounts.c
    by_name = and_(columns.owner == owner, columns.name == account)
    row = connection.execute(
        select(service_accounts).where(or_(columns.id == account, by_name))
    ).one_or_none()
    return None if row is None else _account(row)


def owner_of_account(connection: Connection, user: str) -> str | None:
    """Whose service account a user is; None for a person."""
    statement = select(service_accounts.c.owner).where(service_accounts.c.user == user)
    return connection.execute(statement).scalar_one_or_none()


def remove_user(connection: Connection, name: str) -> set[str]:
    """Remove a user who has no service accounts; returns the subjects who lose something by it.

    Nobody keeps what an account has shared, its owner neither: another may have its name.
    """
    losing: set[str] = {name}
    if owner_of_account(connection, name) is not None:
        losing |= grant_tables.drop_shares_of(connection, name)
    if connection.execute(delete(users).where(users.c.name == name)).rowcount:
        grant_tables.changed(connection)
        grant_tables.remove_subject(connection, name)
    return losing


def admins(connection: Connection) -> list[str]:
    """The names of all administrators, who are held until the transaction ends."""
    statement = select(users.c.name).where(users.c.is_admin).order_by(users.c.name)
    return list(connection.execute(statement.with_for_update()).scalars())


def retire(connection: Connection, name: str, at: datetime) -> None:
    """Keep a name from being given again."""
    connection.execute(delete(retired_users).where(retired_users.c.name == name))
    connection.execute(insert(retired_users).values(name=name, retired_at=at))


def forget_retired(connection: Connection, names: Sequence[str]) -> None:
    """Let names be given again."""
    connection.execute(delete(retired_users).where(retired_users.c.name.in_(names)))


def is_retired(connection: Connection, name: str) -> bool:
    statement = select(retired_users.c.name).where(retired_users.c.name == name)
    return connection.execute(statement).one_or_none() is not None


def gone(connection: Connection) -> set[str]:
    """The names that were users' and are not any more."""
    statement = select(retired_users.c.name).where(
        retired_users.c.name.not_in(select(users.c.name))
    )
    return set(connection.execute(statement).scalars())


def add_token(connection: Connection, token: Token, digest: str, job: str | None = None) -> None:
    connection.execute(
        insert(tokens).values(
            id=token.id,
            user=token.user,
            digest=digest,
            label=token.label,
            created_at=token.created_at,
            expires_at=token.expires_at,
            job=job,
        )
    )


def find_token(connection: Connection, token_id: str) -> tuple[str, str | None, bool] | None:
    """The digest of a token that is not revoked, the job that it was given to, and whether it is a
    service account's.
    """
    row = connection.execute(
        select(tokens.c.digest, tokens.c.job, service_accounts.c.id)
        .outerjoin(service_accounts, service_accounts.c.user == tokens.c.user)
        .where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
    ).one_or_none()
    return None if row is None else (row.digest, row.job, row.id is not None)


def good_among(connection: Connection, token_ids: Collection[str]) -> set[str]:
    """Those of the tokens that are not revoked."""
    found: set[str] = set()
    ids = list(token_ids)
    for start in range(0, len(ids), IDS_AT_ONCE):
        some = ids[start : start + IDS_AT_ONCE]
        good = select(tokens.c.id).where(tokens.c.id.in_(some), tokens.c.revoked_at.is_(None))
        found.update(connection.execute(good).scalars())
    return found


def jobs_with_tokens(connection: Connection) -> list[str]:
    """The ids of jobs that have tokens which are not revoked."""
    rows = connection.execute(
        select(tokens.c.job).where(tokens.c.job.is_not(None), tokens.c.revoked_at.is_(None))
    )
    return sorted(set(rows.scalars()))


def tokens_of_jobs(connection: Connection, job_ids: Collection[str]) -> list[tuple[str, str]]:
    """(user, token id) of what these jobs were given and is not revoked."""
    rows = connection.execute(
        select(tokens.c.user, tokens.c.id).where(
            tokens.c.job.in_(job_ids), tokens.c.revoked_at.is_(None)
        )
    )
    return [(row.user, row.id) for row in rows]


def list_tokens(connection: Connection, user: str) -> list[Token]:
    rows = connection.execute(
        select(tokens).where(tokens.c.user == user).order_by(tokens.c.created_at, tokens.c.id)
    )
    return [
        Token(
            id=row.id,
            user=row.user,
            label=row.label,
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )
        for row in rows
    ]


def revoke_token(connection: Connection, user: str, token_id: str, at: datetime) -> bool:
    changed = connection.execute(
        update(tokens)
        .where(tokens.c.id == token_id, tokens.c.user == user, tokens.c.revoked_at.is_(None))
        .values(revoked_at=at)
    )
    return changed.rowcount > 0


def drop_old_tokens(connection: Connection, before: datetime) -> int:
    """Forget tokens that expired or were revoked before a moment; returns how many."""
    old = or_(tokens.c.expires_at < before, tokens.c.revoked_at < before)
    return connection.execute(delete(tokens).where(old)).rowcount


def _account(row: Row[tuple[object, ...]]) -> ServiceAccount:
    return ServiceAccount(
        id=row.id,
        name=row.name,
        owner=row.owner,
        role=row.user,
        default_cluster=row.default_cluster,
        default_project=row.default_project,
        default_org=row.default_org,
        created_at=row.created_at,
    )


def _user(row: Row[tuple[object, ...]]) -> User:
    return User(name=row.name, is_admin=row.is_admin, created_at=row.created_at)
