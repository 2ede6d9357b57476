"""A data folder and its database know each other.

The engine stops every job that the database does not know. Started by mistake with another
database (``--database`` forgotten), a server would end all the work in its folder; so each keeps
the other's name, and a server with two that do not match refuses to start.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from sqlalchemy import Column, Connection, String, Table, insert, select, text

from neuro.domain.errors import Conflict
from neuro.server.database.engine import Database, told_plainly
from neuro.server.database.schema import metadata

installation = Table("installation", metadata, Column("id", String(64), primary_key=True))

_LOCK = 0x6E6575726F  # of PostgreSQL's advisory locks: "neuro"
_PATIENCE = 10.0  # seconds for the connection of a server that was killed to end
_PAUSE = 0.1


def hold(database: Database, patience: float = _PATIENCE) -> Connection | None:
    """Keep other servers off a PostgreSQL database for as long as the connection is open.

    A copy of the data folder belongs to the same database as the original: its server would end
    the original's jobs. SQLite's file is the folder's own (None). Blocks up to ``patience``
    seconds. Raises Conflict where another server has the database, Unavailable.
    """
    if database.is_sqlite:
        return None
    end = time.monotonic() + patience
    with told_plainly(None):
        connection = database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        while not connection.execute(text(f"SELECT pg_try_advisory_lock({_LOCK})")).scalar():
            if time.monotonic() > end:
                connection.close()
                raise Conflict(
                    "Another server works on this database: stop it first. To try a copy of a data"
                    " folder, restore a copy of the database too, and name it with --database."
                )
            time.sleep(_PAUSE)
    return connection


def check_belongs(database: Database, folder: Path) -> None:
    """Tie a new pair together. Raises Conflict for two that belong elsewhere."""
    path = folder / "installation"
    of_folder = path.read_text("ascii").strip() if path.exists() else None
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
    found: str | None = connection.execute(select(installation.c.id)).scalar_one_or_none()
    if found is None and may_create:
        found = secrets.token_hex(16)
        connection.execute(insert(installation).values(id=found))
    return found
