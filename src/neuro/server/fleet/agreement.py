"""What all servers of one PostgreSQL database have in common.

That is the cluster's name, the key that signs tokens, as each accepts what another has signed, and
the storage: a job finds its files on whichever machine it runs.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path

from sqlalchemy import Connection, select, text, update

from neuro.domain.errors import Conflict, InvalidInput
from neuro.engines.exhaustion import FULL
from neuro.server import durable
from neuro.server.database.engine import Database
from neuro.server.database.identity import installation
from neuro.server.fleet.lease_rows import ALIVE_SECONDS
from neuro.server.fleet.tables import NOW

_ALIVE = int(ALIVE_SECONDS * 1_000_000)
_ID = re.compile("[0-9a-f]{32}")
# Beside the folders of owners, whose names begin with letters.
STORAGE_ID = ".neuro-storage"


def check_cluster(database: Database, cluster: str) -> None:
    """Tie the cluster's name to the database, which ``check_belongs`` knows. Raises Conflict."""
    if not database.is_sqlite:
        database.write_now(lambda connection: _keep_cluster(connection, cluster))


def _keep_cluster(connection: Connection, cluster: str) -> None:
    kept = connection.execute(select(installation.c.cluster).with_for_update()).scalar_one()
    if kept is None:
        connection.execute(update(installation).values(cluster=cluster))
    elif kept != cluster:
        raise Conflict(
            f"cluster is '{cluster}', and that of this database is '{kept}': its jobs, files,"
            f' permissions and logins carry the name. Write cluster = "{kept}" in server.toml, or'
            " use another database."
        )


def check_key(database: Database, server: str, path: Path) -> None:
    """Tie the signing key to the database, which ``check_belongs`` knows.

    Servers of one database accept each other's tokens, so they need the same key. A server that was
    there before may come with a new one while no other lives: that ends every login, as is meant.
    Raises Conflict for another key, before one is made where the file is missing.
    """
    if not database.is_sqlite:
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
        database.write_now(lambda connection: _keep_digest(connection, server, digest, path))


def _keep_digest(connection: Connection, server: str, digest: str | None, path: Path) -> None:
    kept = connection.execute(select(installation.c.key_digest).with_for_update()).scalar_one()
    if kept is not None and kept != digest and not _may_change(connection, server):
        raise Conflict(
            f"The signing key {path} must be the same on all servers of this database: copy"
            " keys/tokens.key from the data folder of another server to there, readable by the"
            " server's user only (`chmod 600`), and start again."
        )
    if digest is not None and kept != digest:
        connection.execute(update(installation).values(key_digest=digest))


def check_storage(database: Database, server: str, folder: Path) -> None:
    """Tie the storage to the database, which ``check_belongs`` knows.

    Its id is in a file of its own, which users cannot reach; a storage that has none gets one. As
    with the key, a server that was there before may come with another storage while no other lives:
    one that was moved, or restored from a back-up. Raises Conflict, InvalidInput where the file
    cannot be used, and OSError for a full disk.
    """
    if database.is_sqlite:
        return
    try:
        database.write_now(lambda connection: _keep_storage(connection, server, folder))
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InvalidInput(
            f"The file {folder / STORAGE_ID}, which says which storage this is, cannot be used:"
            f" {error.strerror or error}. Servers of one storage run all as root, or all as one"
            " user, who can write there."
        ) from None


def _keep_storage(connection: Connection, server: str, folder: Path) -> None:
    # Others wait for the row: of servers that start at once on a new storage, one makes the id.
    kept = connection.execute(select(installation.c.storage).with_for_update()).scalar_one()
    found = storage_id(folder)
    if kept is not None and kept != found and not _may_change(connection, server):
        raise another_storage(folder)
    if found is None:
        found = _make_storage_id(folder)
    if kept != found:
        connection.execute(update(installation).values(storage=found))


def another_storage(folder: Path) -> Conflict:
    """What is said of a storage that is not the other servers'."""
    return Conflict(
        f"The folder of the storage, {folder}, is not the one that the other servers of this"
        " database have: is the shared file system mounted? All servers need the same storage:"
        " write its folder below [storage] in server.toml, and start again. If the storage was"
        " moved or restored, stop all servers, and start one that was there before."
    )


def storage_id(folder: Path) -> str | None:
    """The id of the storage in this folder; None where it has none that can be read.

    Raises OSError.
    """
    try:
        found = (folder / STORAGE_ID).read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    return found if _ID.fullmatch(found) else None


def _make_storage_id(folder: Path) -> str:
    made = secrets.token_hex(16)
    durable.write(folder / STORAGE_ID, made)
    return made


def _may_change(connection: Connection, server: str) -> bool:
    found = connection.execute(
        text(
            "SELECT count(*) AS known, count(*) FILTER (WHERE id = :id) AS own,"
            f" count(*) FILTER (WHERE id <> :id AND seen_at > {NOW} - :alive) AS others"
            " FROM servers"
        ),
        {"id": server, "alive": _ALIVE},
    ).one()
    return not found.others and bool(found.own or not found.known)
