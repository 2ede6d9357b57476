"""What all tables share: the metadata they register with, and how times are kept.

Nothing here loads the dialect of a database that is not used: PostgreSQL's takes 3 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    TextClause,
    event,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite counts up by itself only in a column that is exactly INTEGER.
Sequence = BigInteger().with_variant(Integer, "sqlite")


def upsert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say what is done where the row is there already."""
    return upsert_of(connection.dialect.name, table)


def upsert_of(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """The same for a database of this kind."""
    if dialect == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def index_among(name: str, *columns: str, where: TextClause, unique: bool = False) -> Index:
    """An index of the rows for which ``where`` holds."""
    return Index(name, *columns, unique=unique, info={_WHERE: where})


_WHERE = "where"


@event.listens_for(metadata, "before_create")
def _say_where(_target: MetaData, connection: Connection, **_options: Any) -> None:
    # ``Index`` takes the condition once for each dialect, and loads them all.
    for table in metadata.tables.values():
        for index in table.indexes:
            if _WHERE in index.info:
                index.dialect_options[connection.dialect.name]["where"] = index.info[_WHERE]


class Moment(TypeDecorator[datetime]):
    """An aware UTC time as whole microseconds since 1970: exact, sortable, the same everywhere."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_microseconds(value)

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[int | None], datetime | None]:
        # In place of ``process_result_value``, which takes three calls for each value.
        return _from_database


class Blob(TypeDecorator[bytes]):
    """Bytes that only the server reads.

    SQLite keeps whatever is written into a column. One row with something else makes no other
    row unreadable: a text is its bytes, and all else is no bytes, which nothing decodes.
    """

    impl = LargeBinary
    cache_ok = True

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[object], bytes | None]:
        return _bytes


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    delta = moment - _EPOCH
    return (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_microseconds(value: int) -> datetime:
    """The aware UTC time of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=value)


def _from_database(value: int | None) -> datetime | None:
    if value is None:
        return None
    try:
        return from_microseconds(value)
    except (TypeError, OverflowError):
        # As it is: raised here, one damaged row would take all others of the answer with it.
        return value  # type: ignore[return-value]  # ``damage.moment`` refuses it


def _bytes(value: object) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return bytes(value) if isinstance(value, memoryview | bytearray) else b""
