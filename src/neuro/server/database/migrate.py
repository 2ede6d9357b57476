"""Brings a database to this version's schema. Alembic is loaded only where there is work to do."""

from __future__ import annotations

import time

from sqlalchemy import Connection, inspect, text

from neuro.domain.errors import Conflict
from neuro.server.database.engine import Database, keep_open, told_plainly
from neuro.server.fleet.tables import NOW

# The newest revision below ``migrations/versions``; a test holds the two together.
HEAD = "0019"
# Of PostgreSQL's advisory locks: "neuro", and "neurom". Both are held to a transaction's end.
_ALONE = 0x6E6575726F
_MIGRATIONS = 0x6E6575726F6D
# For a server that was killed to be known as gone.
PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.1


def migrate(database: Database) -> None:
    """Apply the missing migrations.

    One server at a time does so. Raises Conflict for a database of a newer version, and where
    servers of an earlier one work on it, Unavailable for one that does not answer.
    """
    with told_plainly(database.path):
        _migrate(database)


def _migrate(database: Database) -> None:
    with database.engine.connect() as connection:
        if _current(connection) == HEAD:
            return
    with database.engine.begin() as connection:
        if not database.is_sqlite:
            _be_alone(connection)
            keep_open(connection)
        current = _current(connection)  # Another server may have done it meanwhile.
        if current is None:
            _create(connection)
        elif current > HEAD:
            raise Conflict(
                f"The database was written by a newer version (schema {current}, this one knows"
                f" {HEAD}): install that version again, or restore the back-up that was made before"
                " the upgrade."
            )
        elif current != HEAD:
            _wait_for_others(connection)
            _upgrade(connection)


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _be_alone(connection: Connection) -> None:
    """Wait until no other server migrates, to the transaction's end."""
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATIONS})"))


def _wait_for_others(connection: Connection) -> None:
    """Raise Conflict where a server of an earlier version works on the database."""
    if connection.dialect.name == "sqlite":
        return
    end = time.monotonic() + PATIENCE_SECONDS
    while _is_at_work(connection):
        if time.monotonic() > end:
            raise Conflict(
                "A server of an earlier version works on this database: stop it first, and all"
                " others that do; then start this one."
            )
        time.sleep(_PAUSE_SECONDS)


def _is_at_work(connection: Connection) -> bool:
    # Earlier versions were alone on a database, by this lock.
    if not connection.execute(text(f"SELECT pg_try_advisory_xact_lock({_ALONE})")).scalar():
        return True
    if not inspect(connection).has_table("leases"):
        return False
    found = connection.execute(
        text(f"SELECT 1 FROM leases WHERE name LIKE 'server:%' AND expires_at > {NOW}")  # noqa: S608
    )
    return found.first() is not None


def _create(connection: Connection) -> None:
    # A new database gets today's tables at once, without loading Alembic (a quarter of a second);
    # a test compares them with what the migrations build.
    from neuro.server.database import all_tables as _all_tables  # noqa: F401
    from neuro.server.database.schema import metadata

    metadata.create_all(connection)
    connection.execute(
        text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    )
    connection.execute(
        text("INSERT INTO alembic_version (version_num) VALUES (:head)"), {"head": HEAD}
    )


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "neuro.server.database:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
