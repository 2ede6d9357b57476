"""A data folder and its database know each other.

The engine stops every job that the database does not know. Started by mistake with another
database (``--database`` forgotten), a server would end all the work in its folder; so each keeps
the other's name, and a server with two that do not match refuses to start.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from sqlalchemy import Column, Connection, String, Table, insert, select, text

from neuro.domain.errors import Conflict
from neuro.server.database.engine import Database
from neuro.server.database.schema import metadata

installation = Table(
    "installation",
    metadata,
    Column("id", String(64), primary_key=True),
    # On PostgreSQL, where several servers have to have the same: of the key that signs tokens, the
    # cluster's name, and the id of the storage.
    Column("key_digest", String(64), nullable=True),
    Column("cluster", String(255), nullable=True),
    Column("storage", String(64), nullable=True),
)


def check_belongs(database: Database, folder: Path) -> None:
    """Tie a new pair together. Raises Conflict where one of them belongs to another."""
    path = folder / "installation"
    of_folder = path.read_text("ascii", "replace").strip() if path.exists() else None
    of_database = database.write_now(lambda connection: _id(connection, of_folder is None))
    if of_folder is None and of_database is not None:
        path.write_text(of_database + "\n", "ascii")
    elif of_folder != of_database:
        raise Conflict(
            f"The data folder {folder} belongs to another database: start with the same --database"
            f" as before (none means SQLite in the folder), or choose another --data-dir. To give"
            f" the folder a new database and forget its jobs, delete {path}."
        )


def _id(connection: Connection, may_create: bool) -> str | None:
    if may_create and connection.dialect.name != "sqlite":
        # Two servers that start at once on an empty database are one installation.
        connection.execute(text("LOCK TABLE installation IN EXCLUSIVE MODE"))
    found: str | None = connection.execute(select(installation.c.id)).scalar_one_or_none()
    if found is None and may_create:
        found = secrets.token_hex(16)
        connection.execute(insert(installation).values(id=found))
    return found
