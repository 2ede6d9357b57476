"""The rows of leases: each statement is one look at them, or one change. PostgreSQL only.

What they say is told in ``leases``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import Connection, text

from neuro.server.fleet.changes import Topic, record
from neuro.server.fleet.tables import NOW

LIFE_SECONDS = 2.0  # of a lease that is not renewed
# A server that was not seen for so long is not there.
ALIVE_SECONDS = 4.0
_MICROSECONDS = 1_000_000
_LIFE = int(LIFE_SECONDS * _MICROSECONDS)

_CHECK = text("SELECT 1 FROM leases WHERE name = :name AND number = :number FOR KEY SHARE")
# A change of the expiry passes by who checks (KEY SHARE); who takes it waits for them.
_RENEW = text(
    f"WITH seen AS (UPDATE servers SET seen_at = {NOW} WHERE id = :server),"
    f" renewed AS (UPDATE leases SET expires_at = {NOW} + {_LIFE}"
    " FROM unnest(CAST(:names AS TEXT[]), CAST(:numbers AS BIGINT[])) AS held (name, number)"
    " WHERE leases.name = held.name AND leases.number = held.number RETURNING leases.name)"
    " SELECT renewed.name, (SELECT count(*) FROM servers WHERE id <> :server"
    f" AND seen_at > {NOW} - {int(ALIVE_SECONDS * _MICROSECONDS)}) AS others"
    " FROM (SELECT 1) AS one LEFT JOIN renewed ON true"
)
_LOOK = text(
    f"SELECT name, holder, expires_at - {NOW} AS rest FROM leases WHERE name = ANY(:names)"
)
_OTHERS = text(
    "SELECT name FROM leases WHERE starts_with(name, :prefix)"
    f" AND holder NOT IN ('', :server) AND expires_at > {NOW}"
)
_ADD = text(
    "INSERT INTO leases (name, holder, number, expires_at) VALUES (:name, '', 0, 0)"
    " ON CONFLICT (name) DO NOTHING"
)
# FOR UPDATE waits for the transactions that the lease's holder fences with it.
_TAKE = text(
    "WITH free AS (SELECT name FROM leases WHERE name = :name"
    f" AND (holder IN ('', :holder) OR expires_at <= {NOW}) FOR UPDATE)"
    f" UPDATE leases SET holder = :holder, number = number + 1, expires_at = {NOW} + {_LIFE}"
    " FROM free WHERE leases.name = free.name RETURNING leases.number"
)
_RELEASE = text(
    "UPDATE leases SET holder = '', expires_at = 0 WHERE name = :name AND number = :number"
)


def fence(connection: Connection, name: str, number: int) -> bool:
    """Whether a lease has this number still: then nobody takes it before the transaction ends."""
    row = connection.execute(_CHECK, {"name": name, "number": number}).one_or_none()
    return row is not None


def renew(connection: Connection, server: str, numbers: Mapping[str, int]) -> tuple[set[str], int]:
    """Renew leases, given with their numbers, and say that this server is there.

    Returns the names of those that nobody else has taken, and how many other servers are there.
    """
    parameters = {
        "server": server,
        "names": list(numbers),
        "numbers": list(numbers.values()),
    }
    found = connection.execute(_RENEW, parameters).all()
    return {row.name for row in found if row.name is not None}, found[0].others


def look(connection: Connection, names: Collection[str]) -> dict[str, tuple[str, float]]:
    """The holder of each lease and the seconds that it has left."""
    found = connection.execute(_LOOK, {"names": list(names)})
    return {row.name: (row.holder, row.rest / _MICROSECONDS) for row in found}


def held_by_others(connection: Connection, prefix: str, server: str) -> set[str]:
    """What follows ``prefix`` in the names of leases that other servers hold now."""
    found = connection.execute(_OTHERS, {"prefix": prefix, "server": server})
    return {row.name.removeprefix(prefix) for row in found}


def take(connection: Connection, name: str, holder: str) -> int | None:
    """Take a lease where it is free, or this holder's already; its number. None where it is not."""
    connection.execute(_ADD, {"name": name})
    number = connection.execute(_TAKE, {"name": name, "holder": holder}).scalar_one_or_none()
    if number is None:
        return None
    record(connection, Topic.LEASE, [name])
    return int(number)


def release(connection: Connection, held: Iterable[tuple[str, int]]) -> None:
    """Give leases back, given by names and numbers: whoever wants one takes it at once."""
    names = []
    for name, number in held:
        connection.execute(_RELEASE, {"name": name, "number": number})
        names.append(name)
    record(connection, Topic.LEASE, names)
