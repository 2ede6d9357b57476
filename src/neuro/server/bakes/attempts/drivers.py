"""Who drives attempts from a terminal: its stream may be open on any server.

PostgreSQL keeps on which servers; rows of a server that is gone say nothing.
"""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    bindparam,
    delete,
    select,
    text,
)

from neuro.server.database.schema import metadata

drivers = Table(
    "flow_drivers",
    metadata,
    Column("attempt_id", ForeignKey("flow_attempts.id", ondelete="CASCADE"), primary_key=True),
    Column("server_id", String(64), primary_key=True),
    Index(None, "server_id"),
)

_ADD = text(
    "INSERT INTO flow_drivers (attempt_id, server_id)"
    " SELECT id, :server FROM flow_attempts WHERE id = :attempt ON CONFLICT DO NOTHING"
)
_OF = select(drivers.c.server_id).where(drivers.c.attempt_id == bindparam("b_id"))


def attach(connection: Connection, attempt_id: str, server: str) -> bool:
    """The stream of an attempt's driver is open on this server; False where that is known."""
    values = {"attempt": attempt_id, "server": server}
    return connection.execute(_ADD, values).rowcount > 0


def detach(connection: Connection, attempt_id: str, server: str) -> bool:
    """It has ended; False where that is known."""
    result = connection.execute(
        delete(drivers).where(drivers.c.attempt_id == attempt_id, drivers.c.server_id == server)
    )
    return result.rowcount > 0


def forget(connection: Connection, server: str) -> None:
    """None of these streams is open: the server begins, or is gone."""
    connection.execute(delete(drivers).where(drivers.c.server_id == server))


def servers_of(connection: Connection, attempt_id: str) -> set[str]:
    """The servers on which an attempt's driver has a stream, as they have said themselves."""
    return set(connection.execute(_OF, {"b_id": attempt_id}).scalars())
