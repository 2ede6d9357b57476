"""Brings a database to this version's schema. Alembic is loaded only where there is work to do."""

from __future__ import annotations

from sqlalchemy import inspect, text

from neuro.domain.errors import Conflict
from neuro.server.database.engine import Database, told_plainly

# The newest revision below ``migrations/versions``; a test holds the two together.
HEAD = "0009"


def migrate(database: Database) -> None:
    """Apply the missing migrations.

    Raises Conflict for a database of a newer version, Unavailable for one that does not answer.
    """
    with told_plainly(database.path):
        _migrate(database)


def _migrate(database: Database) -> None:
    current = _current(database)
    if current == HEAD:
        return
    if current is None:
        _create(database)
        return
    if current > HEAD:
        raise Conflict(
            f"The database was written by a newer version (schema {current}, this one knows"
            f" {HEAD}): install that version again, or restore the back-up that was made before"
            " the upgrade."
        )
    _upgrade(database)


def _current(database: Database) -> str | None:
    with database.engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _create(database: Database) -> None:
    # A new database gets today's tables at once, without loading Alembic (a quarter of a second);
    # a test compares them with what the migrations build.
    from neuro.server.database import all_tables as _all_tables  # noqa: F401
    from neuro.server.database.schema import metadata

    with database.engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(
            text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        )
        connection.execute(
            text("INSERT INTO alembic_version (version_num) VALUES (:head)"), {"head": HEAD}
        )


def _upgrade(database: Database) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "neuro.server.database:migrations")
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
