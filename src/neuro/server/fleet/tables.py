"""The tables of the servers of one installation. All times are the database's own.

They have rows on PostgreSQL only: SQLite has one server.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, String, Table, Text

from neuro.server.database.schema import Blob, Moment, metadata
from neuro.server.database.schema import Sequence as Counter

# The time of now as ``Moment`` keeps it. Not now(): that is when the transaction began.
NOW = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"

servers = Table(
    "servers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(64), nullable=True),
    # Where the other servers reach it.
    Column("url", String(255), nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    # What its engines have, for the other servers: packed JSON.
    Column("offer", Blob, nullable=True),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(128), primary_key=True),
    # The id of a server; empty where nobody has it.
    Column("holder", String(128), nullable=False),
    # Counts up whenever it is taken: it fences off who held it before.
    Column("number", BigInteger, nullable=False),
    Column("expires_at", Moment, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("sequence", Counter, primary_key=True, autoincrement=True),
    # The transaction that wrote it: whether a reader has seen it is asked by this.
    Column("xid", BigInteger, nullable=False),
    Column("server", String(64), nullable=False),
    Column("topic", String(16), nullable=False),
    # A list in JSON.
    Column("keys", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Index(None, "xid"),
)
