"""What all servers of one PostgreSQL database have in common.

That is the cluster's name, and the key that signs tokens: each accepts what another has signed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sqlalchemy import Connection, select, text, update

from neuro.domain.errors import Conflict
from neuro.server.database.engine import Database
from neuro.server.database.identity import installation
from neuro.server.fleet.lease_rows import ALIVE_SECONDS
from neuro.server.fleet.tables import NOW

_ALIVE = int(ALIVE_SECONDS * 1_000_000)


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
    if kept is not None and kept != digest and not _may_change_key(connection, server):
        raise Conflict(
            f"The signing key {path} must be the same on all servers of this database: copy"
            " keys/tokens.key from the data folder of another server to there, readable by the"
            " server's user only (`chmod 600`), and start again."
        )
    if digest is not None and kept != digest:
        connection.execute(update(installation).values(key_digest=digest))


def _may_change_key(connection: Connection, server: str) -> bool:
    found = connection.execute(
        text(
            "SELECT count(*) AS known, count(*) FILTER (WHERE id = :id) AS own,"
            f" count(*) FILTER (WHERE id <> :id AND seen_at > {NOW} - :alive) AS others"
            " FROM servers"
        ),
        {"id": server, "alive": _ALIVE},
    ).one()
    return not found.others and bool(found.own or not found.known)
